import { defineConfig } from "vitest/config";

// `npm run dev` serves the page itself and hands the API to a running `visavis serve`.
const api = "http://127.0.0.1:8000";

export default defineConfig({
  build: { target: "es2022", outDir: "dist", emptyOutDir: true, assetsInlineLimit: 0 },
  worker: { format: "es" },
  server: { proxy: { "/v1": { target: api, ws: true }, "/health": { target: api } } },
  // Properties take seconds where the machine has other things to do.
  test: { include: ["src/**/*.test.ts"], environment: "node", testTimeout: 60_000 },
});
