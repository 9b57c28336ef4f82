/** A server that wants its clients elsewhere: they move, and nobody notices. */

import type { Browser } from 'puppeteer-core'
import { afterAll, beforeAll, expect, it, onTestFailed } from 'vitest'
import { SOON, Tab } from './browser.js'
import { launchBrowser } from './driver.js'
import { Server } from './server.js'

declare global {
  interface Window {
    /** Every socket of the page, oldest first. */
    sockets: WebSocket[]
    /** What should not have happened, as it happened. */
    flickers: string[]
  }
}

let browser: Browser
let server: Server

beforeAll(async () => {
  browser = await launchBrowser()
  server = await Server.start()
})

afterAll(async () => {
  await browser.close()
  await server.dispose()
})

/** GOAWAY on the control channel: reason `x`, at once. The one server of this test would say it only when it stops. */
const GOAWAY = [0, 15, 1, 0x78, 0, 0]

/** Notes whenever somebody is missing from the list of people, or the status is not `connected`. */
function watch(tab: Tab): Promise<void> {
  return tab.page.evaluate(() => {
    window.flickers = []
    const look = (): void => {
      const names = [...document.querySelectorAll<HTMLElement>('[data-testid="person"]')].map((item) => item.dataset['name'])
      const status = document.querySelector<HTMLElement>('[data-testid="status"]')?.dataset['status']
      if (names.length !== 2 || status !== 'connected') window.flickers.push(`${names.join()} ${String(status)}`)
    }
    new MutationObserver(look).observe(document.body, { subtree: true, childList: true, attributes: true })
  })
}

it('moves to another session without an interruption and without a flicker of presence', async () => {
  onTestFailed(() => {
    process.stderr.write(server.log)
  })
  const before = {
    run: (): void => {
      const Real = window.WebSocket
      window.sockets = []
      window.WebSocket = class extends Real {
        constructor(url: string | URL) {
          super(url)
          window.sockets.push(this)
        }
      }
    },
    argument: '',
  }
  const ada = await Tab.open(browser, `${server.url}/d/moving?carrier=websocket`, { name: 'Ada', before })
  const bo = await Tab.open(browser, `${server.url}/d/moving`, { name: 'Bo' })
  await ada.type('before ')
  await expect.poll(() => ada.people(), SOON).toEqual(['Ada', 'Bo'])
  await expect.poll(() => bo.people(), SOON).toEqual(['Ada', 'Bo'])
  await watch(ada)
  await watch(bo)
  for (let i = 1; i <= 3; i += 1) {
    const typing = ada.page.keyboard.type(`move${i} `, { delay: 10 })
    await ada.page.evaluate((bytes) => {
      window.sockets.at(-1)?.dispatchEvent(new MessageEvent('message', { data: new Uint8Array(bytes).buffer }))
    }, GOAWAY)
    const open = (): Promise<boolean[]> => ada.page.evaluate(() => window.sockets.map((socket) => socket.readyState === WebSocket.OPEN))
    await expect.poll(open, SOON).toEqual([...Array<boolean>(i).fill(false), true])
    await typing
  }
  await ada.type('after')
  await bo.sees('before move1 move2 move3 after')
  await bo.type('!')
  await ada.sees('before move1 move2 move3 after!')
  await ada.saved()
  await expect.poll(() => bo.carets(), SOON).toEqual(['Ada'])
  for (const tab of [ada, bo]) expect(await tab.page.evaluate(() => window.flickers)).toEqual([])
  await ada.close()
  await expect.poll(() => bo.people(), SOON).toEqual(['Bo'])
})
