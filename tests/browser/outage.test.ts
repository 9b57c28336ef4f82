import { createSocket } from 'node:dgram'
import type { Browser } from 'puppeteer-core'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, onTestFailed } from 'vitest'
import type { TabOptions } from './browser.js'
import { SOON, Tab } from './browser.js'
import { launchBrowser } from './driver.js'
import { Server } from './server.js'

let browser: Browser
let server: Server
const tabs: Tab[] = []

/** From the moment at which the server is ready again to the moment at which the page is back. */
const BACK_WITHIN_MS = 3_000

beforeAll(async () => {
  browser = await launchBrowser()
})

beforeEach(async () => {
  server = await Server.start()
})

afterEach(async () => {
  for (const tab of tabs.splice(0)) await tab.close()
  await server.dispose()
})

afterAll(async () => {
  await browser.close()
})

async function open(path: string, name: string, options: TabOptions = {}): Promise<Tab> {
  onTestFailed(() => {
    process.stderr.write(server.log)
  })
  const tab = await Tab.open(browser, `${server.url}${path}`, { name, ...options })
  tabs.push(tab)
  return tab
}

/** Words that cannot be mistaken for each other when one is lost, doubled or out of place. */
function words(from: number, to: number): string {
  let text = ''
  for (let i = from; i < to; i += 1) text += `w${i} `
  return text
}

describe.each([
  ['WebTransport', ''],
  ['WebSocket', '?carrier=websocket'],
])('over %s', (carrier, query) => {
  it('a server that is killed while people type and started again loses and doubles nothing', async () => {
    const ada = await open(`/d/killed${query}`, 'Ada')
    const bo = await open(`/d/killed${query}`, 'Bo')
    expect([await ada.textOf('carrier'), await bo.textOf('carrier')]).toEqual([carrier, carrier])
    await ada.type(words(0, 20))
    const typing = ada.page.keyboard.type(words(20, 60), { delay: 4 })
    await expect.poll(() => bo.text(), SOON).toContain('w25 ')
    await server.kill()
    await typing
    await expect.poll(() => ada.light(), SOON).toBe('local')
    expect(await ada.textOf('save-light')).toMatch(/^\d+ changes? only here$/)
    await ada.page.keyboard.type(words(60, 80))
    await ada.screenshot(`outage-${carrier}`)
    await server.restart()
    const readyAt = performance.now()
    await ada.connected(BACK_WITHIN_MS)
    const backMs = performance.now() - readyAt
    await ada.saved()
    await ada.sees(words(0, 80))
    await bo.sees(words(0, 80))
    expect(await ada.textOf('carrier')).toBe(carrier)
    await expect.poll(() => ada.people(), SOON).toEqual(['Ada', 'Bo'])
    process.stdout.write(`back ${Math.round(backMs)} ms after the server, over ${carrier}\n`)
    // Whoever comes new sees the same, and so does the server after another death.
    await server.kill()
    await server.restart()
    const cleo = await open(`/d/killed${query}`, 'Cleo')
    await cleo.sees(words(0, 80))
  })

  it('the light tells the truth: local, saving, saved', async () => {
    const ada = await open(`/d/light${query}`, 'Ada')
    await ada.saved()
    expect(await ada.textOf('save-light')).toBe('Saved')
    // Sent, and never answered: the process stands still while its sockets live.
    server.freeze()
    await ada.type('x')
    await expect.poll(() => ada.light(), SOON).toBe('saving')
    expect(await ada.textOf('save-light')).toBe('Saving')
    await ada.screenshot(`light-saving-${carrier}`)
    server.thaw()
    await ada.saved()
    // Gone: what is typed now is only here, and counted.
    await server.kill()
    await expect.poll(() => ada.attribute('status', 'data-status'), SOON).not.toBe('connected')
    await ada.type('yz')
    await expect.poll(() => ada.textOf('save-light'), SOON).toBe('2 changes only here')
    expect(await ada.light()).toBe('local')
    await ada.screenshot(`light-local-${carrier}`)
    await server.restart()
    await ada.saved()
    await ada.sees('xyz')
    await ada.screenshot(`light-saved-${carrier}`)
  })

  it('an orderly restart is hardly noticed', async () => {
    const ada = await open(`/d/orderly${query}`, 'Ada')
    await ada.type('before ')
    expect(await server.stop()).toBe(0)
    await ada.type('between ')
    await server.restart()
    await ada.connected(BACK_WITHIN_MS)
    await ada.type('after')
    await ada.saved()
    await ada.sees('before between after')
  })
})

describe('where QUIC is blocked', () => {
  it('WebSocket takes over after a short head start, and is what is used after the next outage too', async () => {
    // A port where everything is swallowed: what a network that drops UDP looks like from here.
    const hole = createSocket('udp4')
    await new Promise<void>((resolve) => hole.bind(0, '127.0.0.1', resolve))
    const before = {
      run: (url: string): void => {
        const real = window.fetch.bind(window)
        window.fetch = async (...request): Promise<Response> => {
          const response = await real(...request)
          if (!response.url.endsWith('/v1/connect')) return response
          const answer = (await response.json()) as { webtransport: { url: string } }
          answer.webtransport.url = url
          return Response.json(answer)
        }
      },
      argument: `https://127.0.0.1:${hole.address().port}/`,
    }
    try {
      const startedAt = performance.now()
      const tab = await open('/d/blocked', 'Ada', { before })
      expect(await tab.textOf('carrier')).toBe('WebSocket')
      // Chromium itself takes 4 s to give up on QUIC, Firefox half a minute.
      expect(performance.now() - startedAt).toBeLessThan(3_900)
      await server.kill()
      await server.restart()
      await tab.connected(BACK_WITHIN_MS)
      await tab.type('through')
      await tab.saved()
      expect(await tab.textOf('carrier')).toBe('WebSocket')
    } finally {
      hole.close()
    }
  })
})
