import { fileURLToPath } from 'node:url'
import { gzipSync } from 'node:zlib'
import { build } from 'vite'
import { expect, it } from 'vitest'

/** What an application pays for the SDK, its peers not counted. */
const GZIP_BYTES_MAX = 20 * 1024

it('is small, and drags nothing along but its peers', async () => {
  const result = await build({
    configFile: false,
    logLevel: 'silent',
    build: {
      write: false,
      lib: { entry: fileURLToPath(new URL('../src/index.ts', import.meta.url)), formats: ['es'] },
      rolldownOptions: { external: /^(yjs|y-protocols|lib0)/ },
    },
  })
  const [bundle] = Array.isArray(result) ? result : []
  const code = bundle?.output[0].code ?? ''
  expect(code).toContain('SynclineProvider')
  expect(gzipSync(code).length).toBeLessThan(GZIP_BYTES_MAX)
  const imports = [...code.matchAll(/from\s*["']([^"']+)["']/g)].map(([, from]) => from)
  expect(imports.filter((from) => !/^(yjs|y-protocols\/|lib0\/)/.test(from ?? ''))).toEqual([])
})
