import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["test/**/*.test.{ts,tsx}"],
    // A test without an assertion cannot fail, and neither can a run without tests.
    expect: { requireAssertions: true },
    passWithNoTests: false,
  },
});
