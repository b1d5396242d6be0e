/** The clipboard, also on a page without HTTPS, where browsers refuse `navigator.clipboard`. */

/** Select an element's text and copy it. If neither way to copy works, the user can still copy the selection. */
export async function copyText(element: HTMLElement): Promise<boolean> {
  getSelection()?.selectAllChildren(element);
  try {
    await navigator.clipboard.writeText(element.textContent ?? "");
    return true;
  } catch {
    return document.execCommand("copy");
  }
}
