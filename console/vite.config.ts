import { fileURLToPath } from 'node:url'
import react from '@vitejs/plugin-react'
import { defineConfig } from 'vite'

const here = (path: string) => fileURLToPath(new URL(path, import.meta.url))

// Each entry is a page. Its assets are addressed relative to the address that it is served at, so that a path prefix of a proxy changes nothing.
const entries: Record<string, { page: string; assets: string }> = {
  index: { page: 'index.html', assets: 'console/' }, // served at /
  calls: { page: 'calls.html', assets: '../console/' }, // served at /api/docs
  events: { page: 'events.html', assets: '../../console/' }, // served at /api/docs/events
}

export default defineConfig({
  plugins: [react()],
  base: './',
  resolve: { alias: { '@runcast/client': here('client/src/index.ts') } },
  experimental: {
    renderBuiltUrl(filename, { hostId, hostType }) {
      const page = Object.values(entries).find(entry => hostType === 'html' && hostId.endsWith(entry.page))
      return page ? page.assets + filename : { relative: true }
    },
  },
  build: {
    outDir: here('../handlers/console'),
    emptyOutDir: true,
    target: 'es2022',
    assetsInlineLimit: 0, // the Content-Security-Policy of the pages forbids `data:` scripts and styles
    modulePreload: { polyfill: false },
    chunkSizeWarningLimit: 1000,
    license: { fileName: 'LICENSES.md' }, // of all that is bundled
    rolldownOptions: { input: Object.fromEntries(Object.entries(entries).map(([name, { page }]) => [name, here(page)])) },
  },
})
