import { defineConfig } from "vite";

// The package: plain ES modules with relative addresses, so that it runs from any bundler, or none.
export default defineConfig({
  base: "./",
  publicDir: false,
  build: {
    target: "es2022",
    outDir: "build",
    emptyOutDir: true,
    assetsInlineLimit: 0,
    minify: true,
    lib: { entry: "src/lib/index.ts", formats: ["es"], fileName: "index" },
    rollupOptions: { external: ["mediabunny"] },
  },
  worker: { format: "es" },
});
