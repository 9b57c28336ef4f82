/**
 * What the browsers do when nobody helps them: the facts behind the SDK's deadlines, as README.md tells them.
 * They take a minute and change only with a browser, so they run with SYNCLINE_TEST_LONG=1.
 */

import { createSocket } from 'node:dgram'
import type { Browser, Page } from 'puppeteer-core'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { SynclineProvider } from '../../client/sdk/src/index.js'
import { BROWSER, launchBrowser, newPage } from './driver.js'
import { PageServer } from './page.js'
import { Server } from './server.js'

const SCRIPT = `
import * as Y from 'yjs'
import { SynclineProvider } from '@syncline/client'
const base = new URL(location.href).searchParams.get('server')
const endpoints = async () => (await (await fetch(base + '/v1/connect')).json()).webtransport
const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0))
window.dial = async (url) => {
  const { url: own, certificateHashes } = await endpoints()
  const options = { serverCertificateHashes: certificateHashes.map((hash) => ({ algorithm: 'sha-256', value: bytes(hash) })) }
  return new WebTransport(url ?? own, options)
}
window.provide = (name) => new SynclineProvider(base, name, new Y.Doc(), { carriers: ['webtransport'] })
`

declare global {
  interface Window {
    providers: SynclineProvider[]
  }
}

interface Facts {
  dial: (url?: string) => Promise<WebTransport>
}

let browser: Browser
let server: Server
let pages: PageServer

describe.runIf(process.env['SYNCLINE_TEST_LONG'] === '1')(`facts of ${BROWSER}`, () => {
  beforeAll(async () => {
    pages = await PageServer.start(SCRIPT)
    browser = await launchBrowser()
    server = await Server.start()
  })

  afterAll(async () => {
    await browser.close()
    await pages.stop()
    await server.dispose()
  })

  async function application(): Promise<Page> {
    const page = await newPage(browser)
    await page.goto(`${pages.url}?server=${encodeURIComponent(server.url)}`)
    await page.waitForFunction(() => 'dial' in window)
    return page
  }

  function tell(what: string): void {
    process.stdout.write(`${BROWSER}: ${what}\n`)
  }

  it('how long a connect stays pending where UDP is swallowed', async () => {
    const hole = createSocket('udp4')
    await new Promise<void>((resolve) => hole.bind(0, '127.0.0.1', resolve))
    const page = await application()
    const pendingMs = await page.evaluate(async (url) => {
      const transport = await (window as unknown as Facts).dial(url)
      transport.closed.catch(() => undefined)
      const since = performance.now()
      const settled = transport.ready.then(
        () => -1,
        () => performance.now() - since,
      )
      return Promise.race([settled, new Promise<number>((resolve) => setTimeout(resolve, 45_000, Number.POSITIVE_INFINITY))])
    }, `https://127.0.0.1:${hole.address().port}/`)
    hole.close()
    tell(`a connect into nothing is given up after ${(pendingMs / 1000).toFixed(1)} s`)
    // The SDK's own deadline and head start are made for both.
    expect(pendingMs).toBeGreaterThan(2_000)
  })

  it.each([
    ['that sends nothing', 0],
    ['that goes on sending', 200],
  ])('how soon a page %s notices that the server was killed and started again, and what it is told', async (what, gapMs) => {
    const page = await application()
    await page.evaluate(async (gapMs) => {
      const transport = await (window as unknown as Facts).dial()
      await transport.ready
      const writer = transport.datagrams.writable.getWriter()
      if (gapMs > 0) setInterval(() => void writer.write(new Uint8Array([1])).catch(() => undefined), gapMs)
      const end = (cause: unknown): void => {
        document.title = cause instanceof WebTransportError ? `${cause.source}, code ${String(cause.streamErrorCode)}` : String(cause)
      }
      void transport.closed.then(end, end)
    }, gapMs)
    await server.kill()
    await server.restart()
    const since = performance.now()
    const told = async (): Promise<string> => {
      if ((await page.title()) !== '') return page.title()
      return performance.now() - since > 45_000 ? 'nothing' : ''
    }
    await expect.poll(told, { timeout: 50_000, interval: 50 }).not.toBe('')
    tell(`a page ${what} is told after ${Math.round((performance.now() - since) / 100) / 10} s: ${await told()}`)
  })

  it('how much presence of sixty documents at once comes by datagrams, and how much needs the stream', async () => {
    const [one, two] = [await application(), await application()]
    const N = 60
    // Twelve bursts; a state that is there before its burst is repeated on the stream came by a datagram.
    const open = (page: Page): Promise<void> =>
      page.evaluate(async (n) => {
        const providers = Array.from({ length: n }, (_, i) => window.provide(`facts/${i}`, 'webtransport'))
        Object.assign(window, { providers })
        await Promise.all(providers.map((provider) => provider.whenSynced))
      }, N)
    await open(one)
    await open(two)
    let nBefore = 0
    let nAfter = 0
    for (let burst = 1; burst <= 12; burst += 1) {
      const count = (): Promise<number> =>
        two.evaluate(
          (burst) =>
            window.providers.filter((provider) => [...provider.awareness.getStates().values()].some((state) => state['n'] === burst)).length,
          burst,
        )
      await one.evaluate((burst) => {
        for (const provider of window.providers) provider.awareness.setLocalState({ n: burst })
      }, burst)
      const since = performance.now()
      await expect.poll(() => performance.now() - since, { interval: 10 }).toBeGreaterThan(250)
      nBefore += await count()
      await expect.poll(count, { timeout: 10_000, interval: 50 }).toBe(N)
      nAfter += await count()
    }
    tell(`of ${nAfter} states in bursts of ${N}, ${nBefore} were there before they were repeated`)
    expect(nAfter).toBe(12 * N)
  })
})
