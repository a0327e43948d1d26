/** How the page is built: into the Python package, with addresses relative to where it is served. */
import { defineConfig } from "vite";

const server = process.env["SPICULA_SERVER"] ?? "http://127.0.0.1:8000";
const passed = { target: server, changeOrigin: true, headers: { origin: server } };

export default defineConfig({
  base: "./",
  build: {
    outDir: "../src/spicula/web/page",
    emptyOutDir: true,
    target: "es2022",
    chunkSizeWarningLimit: 6000,
    license: { fileName: "assets/licenses.md" },
  },
  worker: { format: "es" },
  optimizeDeps: { exclude: ["@cornerstonejs/dicom-image-loader"], include: ["dicom-parser"] },
  server: { proxy: { "/api": passed, "/dicom-web": passed } },
});
