/** The SDK alone in a page, for what the demo does not do: many documents, large edits, leaving in a hurry. */

import type { Browser, Page } from 'puppeteer-core'
import { afterAll, afterEach, beforeAll, describe, expect, it, onTestFailed } from 'vitest'
import type { SynclineProvider } from '../../client/sdk/src/index.js'
import { SOON } from './browser.js'
import { launchBrowser, newPage } from './driver.js'
import { PageServer } from './page.js'
import { Server } from './server.js'

type Carrier = 'webtransport' | 'websocket'

declare global {
  interface Window {
    /** A provider for a document of this server. */
    provide: (name: string, carrier: Carrier) => SynclineProvider
    /** The same, once it is in step. */
    openDocument: (name: string, carrier: Carrier) => Promise<SynclineProvider>
  }
}

const SCRIPT = `
import * as Y from 'yjs'
import { SynclineProvider } from '@syncline/client'
window.provide = (name, carrier) => new SynclineProvider(new URL(location.href).searchParams.get('server'), name, new Y.Doc(), { carriers: [carrier] })
window.openDocument = async (name, carrier) => {
  const provider = window.provide(name, carrier)
  await provider.whenSynced
  return provider
}
`

let browser: Browser
let server: Server
const opened: Page[] = []
let pages: PageServer

beforeAll(async () => {
  pages = await PageServer.start(SCRIPT)
  browser = await launchBrowser()
  server = await Server.start()
})

afterEach(async () => {
  for (const page of opened.splice(0)) await page.browserContext().close()
})

afterAll(async () => {
  await browser.close()
  await pages.stop()
  await server.dispose()
})

async function application(): Promise<Page> {
  onTestFailed(() => {
    process.stderr.write(server.log)
  })
  const page = await newPage(browser)
  opened.push(page)
  await page.goto(`${pages.url}?server=${encodeURIComponent(server.url)}`)
  await page.waitForFunction(() => 'openDocument' in window)
  return page
}

/** The text of a document, read by a page of its own. */
async function read(name: string, carrier: Carrier): Promise<string> {
  const page = await application()
  const text = await page.evaluate(
    async (name, carrier) => (await window.openDocument(name, carrier)).doc.getText('t').toString(),
    name,
    carrier,
  )
  await page.close()
  return text
}

describe.each(['webtransport', 'websocket'] as const)('over %s', (carrier) => {
  it('carries forty documents on one connection, more than the streams that it starts with', async () => {
    const page = await application()
    const outcome = await page.evaluate(async (carrier) => {
      const providers = await Promise.all(Array.from({ length: 40 }, (_, i) => window.openDocument(`many-${carrier}/${i}`, carrier)))
      for (const [i, provider] of providers.entries()) provider.doc.getText('t').insert(0, `document ${i}`)
      await Promise.all(providers.map((provider) => provider.whenSaved))
      return providers.map((provider) => [provider.carrier, provider.pending])
    }, carrier)
    expect(outcome).toEqual(Array.from({ length: 40 }, () => [carrier, 0]))
    expect(await read(`many-${carrier}/39`, carrier)).toBe('document 39')
  })

  it('an edit made in the moment before leaving arrives', async () => {
    for (let i = 0; i < 3; i += 1) {
      const page = await application()
      await page.evaluate(
        async (carrier, i) => {
          const provider = await window.openDocument(`hurry-${carrier}-${i}`, carrier)
          provider.doc.getText('t').insert(0, 'last words')
          provider.destroy()
        },
        carrier,
        i,
      )
      await expect.poll(() => read(`hurry-${carrier}-${i}`, carrier), SOON).toBe('last words')
    }
  })

  it('an edit that is larger than one update, and a document that is larger than one fragment, get through', async () => {
    const page = await application()
    const pending = await page.evaluate(async (carrier) => {
      const provider = await window.openDocument(`large-${carrier}`, carrier)
      provider.doc.getText('t').insert(0, 'x'.repeat(3_000_000))
      provider.doc.getText('t').insert(0, 'start ')
      await provider.whenSaved
      return provider.pending
    }, carrier)
    expect(pending).toBe(0)
    const text = await read(`large-${carrier}`, carrier)
    expect([text.length, text.slice(0, 8)]).toEqual([3_000_006, 'start xx'])
  })

  it('the last word of a burst of presence arrives, whatever became of the datagrams before it', async () => {
    const [one, two] = [await application(), await application()]
    const seen = two.evaluate(async (carrier) => {
      const provider = await window.openDocument(`burst-${carrier}`, carrier)
      document.title = 'watching'
      return new Promise<number[]>((resolve) => {
        const numbers: number[] = []
        provider.awareness.on('change', () => {
          for (const state of provider.awareness.getStates().values()) {
            if (typeof state['n'] === 'number' && numbers.at(-1) !== state['n']) numbers.push(state['n'])
          }
          if (numbers.at(-1) === 60) resolve(numbers)
        })
      })
    }, carrier)
    await expect.poll(() => two.title(), SOON).toBe('watching')
    await one.evaluate(async (carrier) => {
      const provider = await window.openDocument(`burst-${carrier}`, carrier)
      for (let n = 1; n <= 60; n += 1) {
        provider.awareness.setLocalState({ n })
        await new Promise((resolve) => setTimeout(resolve, 20))
      }
    }, carrier)
    const numbers = await seen
    // In order, and enough of them for a cursor that moves.
    expect(numbers).toEqual([...numbers].sort((a, b) => a - b))
    expect(numbers.length).toBeGreaterThan(5)
  })

  it('what one application broadcasts the others receive', async () => {
    const [one, two] = [await application(), await application()]
    const received = two.evaluate(async (carrier) => {
      const provider = await window.openDocument(`radio-${carrier}`, carrier)
      document.title = 'listening'
      return new Promise<number[]>((resolve) => {
        provider.on('message', (body) => {
          resolve([...body])
        })
      })
    }, carrier)
    await expect.poll(() => two.title(), SOON).toBe('listening')
    await one.evaluate(async (carrier) => {
      const provider = await window.openDocument(`radio-${carrier}`, carrier)
      provider.broadcast(new Uint8Array([1, 2, 3]))
    }, carrier)
    expect(await received).toEqual([1, 2, 3])
  })

  it('a document with no name to speak of is refused for good, and the others go on', async () => {
    const page = await application()
    const outcome = await page.evaluate(async (carrier) => {
      const good = await window.openDocument(`good-${carrier}`, carrier)
      const bad = window.provide('', carrier)
      const code = await new Promise<string>((resolve) => {
        bad.on('closed', (failure) => {
          resolve(failure.code)
        })
      })
      good.doc.getText('t').insert(0, 'on')
      await good.whenSaved
      return [code, bad.status, good.status]
    }, carrier)
    expect(outcome).toEqual(['invalid_message', 'closed', 'connected'])
  })
})
