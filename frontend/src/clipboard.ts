/** The clipboard, also where the page is not served over HTTPS and the browser's own way to it is closed. */

/** Copies what an element shows, and selects it: where nothing can copy, the keyboard still can. */
export async function copyText(element: HTMLElement): Promise<boolean> {
  getSelection()?.selectAllChildren(element);
  try {
    await navigator.clipboard.writeText(element.textContent ?? "");
    return true;
  } catch {
    return document.execCommand("copy");
  }
}
