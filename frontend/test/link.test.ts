import { describe, expect, it } from "vitest";
import { isOwnTab, readLink, writeLink } from "../src/link";

const NOTHING = { run: null, step: null, layer: null };

describe("readLink", () => {
  it("reads its own keys, decoded", () => {
    const hash = "#nanwatch&p.nanwatch.run=a%2Fb%26c&p.nanwatch.step=411&p.nanwatch.layer=l3%3D1";
    expect(readLink(hash)).toEqual({ run: "a/b&c", step: 411, layer: "l3=1" });
  });

  it("reads a value with a bare equals sign in full", () => {
    expect(readLink("#nanwatch&p.nanwatch.run=lr=0.1").run).toBe("lr=0.1");
  });

  it.each([["#nanwatch"], [""], ["#scalars&p.other.run=x"], ["#nanwatch&p.nanwatch.step=soon"]])(
    "finds nothing in %j",
    (hash) => {
      expect(readLink(hash)).toEqual(NOTHING);
    },
  );

  it("reads a broken escape literally", () => {
    expect(readLink("#nanwatch&p.nanwatch.run=100%").run).toBe("100%");
  });
});

describe("writeLink", () => {
  it("keeps the tab and foreign keys, and replaces its own keys", () => {
    const hash = "#nanwatch&p.other.x=1&p.nanwatch.run=old&p.nanwatch.step=3";
    expect(writeLink(hash, { ...NOTHING, run: "new run" })).toBe(
      "#nanwatch&p.other.x=1&p.nanwatch.run=new%20run",
    );
  });

  it("writes a link that reads back unchanged", () => {
    const link = { run: "lr=0.1/&?#%", step: 0, layer: "dense\n1" };
    expect(readLink(writeLink("#nanwatch", link))).toEqual(link);
  });
});

describe("isOwnTab", () => {
  it("distinguishes this plugin's tab from others", () => {
    expect(["#nanwatch", "#nanwatch&x=1", "#scalars&p.nanwatch.run=a", ""].map(isOwnTab)).toEqual([
      true,
      true,
      false,
      false,
    ]);
  });
});
