import { fileURLToPath } from 'node:url'
import { defineConfig } from 'vite'

export default defineConfig({
  // The SDK's sources, not its build: one `npm run build` and no stale half.
  resolve: {
    alias: { '@syncline/client': fileURLToPath(new URL('../sdk/src/index.ts', import.meta.url)) },
    // Two copies of Yjs in one page break every instanceof check in it.
    dedupe: ['yjs', 'y-protocols', 'lib0'],
  },
  build: {
    target: 'es2022',
    // The page is served under a policy without inline scripts, so nothing may be injected.
    modulePreload: { polyfill: false },
    assetsInlineLimit: 0,
    chunkSizeWarningLimit: 900,
  },
  server: {
    // `npm run dev` beside a running server: the page asks its own origin, like in production.
    proxy: {
      '/v1': 'http://127.0.0.1:8080',
      '/healthz': 'http://127.0.0.1:8080',
      '/ws': { target: 'ws://127.0.0.1:8080', ws: true },
    },
  },
})
