/** Modules for the page, bundled as an application would. */

import { resolve } from 'node:path'
import { build } from 'vite'

/** The workspace of SDK and demo. */
export const CLIENT = resolve(import.meta.dirname, '../../client')

/** Bundles a module, with the SDK's sources for the package. */
export async function bundle(code: string): Promise<string> {
  const entry = 'virtual:entry'
  const result = await build({
    configFile: false,
    logLevel: 'silent',
    root: resolve(CLIENT, 'app'),
    resolve: { alias: { '@syncline/client': resolve(CLIENT, 'sdk/src/index.ts') }, dedupe: ['yjs'] },
    build: { write: false, minify: false, target: 'es2022', rolldownOptions: { input: entry } },
    plugins: [
      {
        name: 'entry',
        resolveId: (id) => (id === entry ? resolve(CLIENT, 'app/src/virtual-entry.js') : undefined),
        load: (id) => (id.endsWith('virtual-entry.js') ? code : undefined),
      },
    ],
  })
  if (!('output' in result)) throw new Error('one bundle was asked for')
  return result.output[0].code
}
