import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["test/**/*.test.{ts,tsx}"],
    // A test without an assertion proves nothing, and neither does a run without a test.
    expect: { requireAssertions: true },
    passWithNoTests: false,
  },
});
