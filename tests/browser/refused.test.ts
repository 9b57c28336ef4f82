/** What the demo says, and offers, when the server will not have a person's text: in words, with a way to keep it. */

import type { Browser } from 'puppeteer-core'
import { afterAll, afterEach, beforeAll, describe, expect, it, onTestFailed } from 'vitest'
import type { TabOptions } from './browser.js'
import { SOON, Tab } from './browser.js'
import { launchBrowser } from './driver.js'
import { Server } from './server.js'

let browser: Browser
let server: Server
const tabs: Tab[] = []

const PHONE: TabOptions = { width: 390, height: 780, phone: true }

beforeAll(async () => {
  browser = await launchBrowser()
  // A small document is full soon.
  server = await Server.start({ SYNCLINE_DOCUMENT__DOCUMENT_BYTES_MAX: '16KiB' })
})

afterEach(async () => {
  for (const tab of tabs.splice(0)) await tab.close()
})

afterAll(async () => {
  await browser.close()
  await server.dispose()
})

async function open(path: string, options: TabOptions = {}): Promise<Tab> {
  onTestFailed(() => {
    process.stderr.write(server.log)
  })
  const tab = await Tab.open(browser, `${server.url}${path}`, { name: 'Ada', ...options })
  tabs.push(tab)
  return tab
}

/** Pastes as a person would, in one edit. */
async function paste(tab: Tab, text: string): Promise<void> {
  await tab.focus()
  await tab.press('Control+End')
  await tab.page.evaluate((text) => {
    const clipboardData = new DataTransfer()
    clipboardData.setData('text/plain', text)
    // Firefox takes no data in the constructor of a ClipboardEvent.
    const event = Object.defineProperty(new Event('paste', { bubbles: true, cancelable: true }), 'clipboardData', { value: clipboardData })
    document.querySelector('.ProseMirror')?.dispatchEvent(event)
  }, text)
}

async function notice(tab: Tab, kind: string): Promise<void> {
  await expect.poll(() => tab.attribute('notice', 'data-kind'), SOON).toBe(kind)
  expect(await tab.isVisible('notice')).toBe(true)
  // In sight without scrolling, and so are its buttons.
  const box = await tab.page.evaluate(() => {
    const { top, bottom } = document.querySelector('[data-testid="notice"]')?.getBoundingClientRect() ?? { top: -1, bottom: -1 }
    return { top, below: bottom - window.innerHeight }
  })
  expect(box.top).toBeGreaterThanOrEqual(0)
  expect(box.below).toBeLessThan(0)
  // Nothing sticks out sideways, whatever the width, and the light can be read.
  expect(await tab.page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth)).toBeLessThanOrEqual(0)
  expect(await tab.isVisible('save-light')).toBe(true)
  const cut = await tab.page.evaluate(() => {
    const light = document.querySelector('[data-testid="save-light"]')
    return light === null ? -1 : light.scrollWidth - light.clientWidth
  })
  expect(cut).toBeLessThanOrEqual(0)
}

/** What a button would have put among the downloads. */
async function downloaded(tab: Tab, testId: string): Promise<{ name: string; bytes: number[] }> {
  await tab.page.evaluate(() => {
    const made = new Map<string, Blob>()
    const real = URL.createObjectURL.bind(URL)
    URL.createObjectURL = (blob: Blob): string => {
      const url = real(blob)
      made.set(url, blob)
      return url
    }
    addEventListener('click', (event) => {
      if (!(event.target instanceof HTMLAnchorElement)) return
      event.preventDefault()
      const { download, href } = event.target
      void made.get(href)?.arrayBuffer().then((buffer) => {
        Object.assign(window, { saved: { name: download, bytes: [...new Uint8Array(buffer)] } })
      })
    }, true)
    HTMLAnchorElement.prototype.click = function (): void {
      document.body.append(this)
      this.dispatchEvent(new MouseEvent('click', { bubbles: true, cancelable: true }))
      this.remove()
    }
  })
  await tab.click(testId)
  const handle = await tab.page.waitForFunction(() => (window as unknown as { saved?: { name: string; bytes: number[] } }).saved)
  const saved = await handle.jsonValue()
  if (saved === undefined) throw new Error('nothing was saved')
  return saved
}

describe('a change that is refused for good', () => {
  it.each([
    ['on a desk', {}],
    ['on a phone', PHONE],
  ])('freezes the text, says why, and lets a person keep it, %s', async (where, view) => {
    const path = `/d/full-${where === 'on a phone' ? 'phone' : 'desk'}`
    const ada = await open(path, view)
    await ada.type('Saved so far. ')
    await ada.saved()
    await paste(ada, 'too much '.repeat(2_500))
    await notice(ada, 'frozen')
    expect(await ada.textOf('notice-title')).toBe('Your copy is frozen')
    expect(await ada.textOf('notice-text')).toMatch(/^The server refused a change\. .+\. What you wrote from then on is only here, and is not sent\.$/)
    expect([await ada.light(), await ada.textOf('save-light')]).toEqual(['frozen', '1 change only here, not sent'])
    expect(await ada.isWritable()).toBe(false)
    await ada.screenshot(`frozen-${where === 'on a phone' ? 'phone' : 'desk'}`)
    const text = await downloaded(ada, 'notice-export')
    expect(text.name).toBe(`${path.slice(3)}.html`)
    expect(Buffer.from(text.bytes).toString()).toContain('Saved so far. too much too much')
    // The others go on with what was taken.
    const bo = await open(path, { name: 'Bo' })
    await bo.type('And on.')
    expect(await bo.text()).toBe('Saved so far. And on.')
    await bo.saved()
    await expect.poll(() => ada.text(), SOON).toContain('And on.')
  })

  it('goes on in a copy, saved under a name of its own', async () => {
    const ada = await open('/d/history')
    // Its history makes the document full; the text itself would fit.
    await paste(ada, 'x'.repeat(9_000))
    await ada.saved()
    await ada.press('Control+a')
    await ada.press('Delete')
    await ada.sees('')
    const text = 'What matters. '.repeat(640)
    await paste(ada, text)
    await notice(ada, 'frozen')
    await ada.click('notice-copy')
    await expect.poll(() => ada.textOf('doc-name'), SOON).toMatch(/^history-copy-\w+$/)
    await ada.connected()
    await ada.sees(text)
    await ada.writable()
    await ada.type('And more.')
    await ada.saved()
    await ada.sees(`${text}And more.`)
    expect(await ada.isVisible('notice')).toBe(false)
  })
})

describe('a document that was replaced', () => {
  it.each([
    ['desk', {}],
    ['phone', PHONE],
  ])('is set aside, kept, and not merged (%s)', async (where, view) => {
    const ada = await open(`/d/replaced-${where}`, view)
    await ada.type('From before. ')
    await ada.saved()
    await server.kill()
    await ada.type('Never sent.')
    server.forgetDocuments()
    await server.restart()
    await notice(ada, 'replaced')
    expect(await ada.textOf('notice-title')).toBe('This document was replaced')
    expect(await ada.attribute('status', 'data-status')).toBe('replaced')
    expect(await ada.light()).toBe('frozen')
    expect(await ada.textOf('save-light')).toMatch(/^\d+ changes only here, not sent$/)
    expect([await ada.isWritable(), await ada.text()]).toEqual([false, 'From before. Never sent.'])
    await ada.screenshot(`replaced-${where}`)
    const { name, bytes } = await downloaded(ada, 'notice-export-yjs')
    expect([name, bytes.length > 20]).toEqual([`replaced-${where}.yjs`, true])
    const bo = await open(`/d/replaced-${where}`, { name: 'Bo' })
    expect(await bo.text()).toBe('')
  })
})

describe('a person who may not come in', () => {
  it.each([
    ['desk', {}],
    ['phone', PHONE],
  ])('is told so, and may try again (%s)', async (where, view) => {
    const before = {
      run: (): void => {
        const real = window.fetch.bind(window)
        window.fetch = (...request): Promise<Response> => {
          const url = request[0] instanceof Request ? request[0].url : String(request[0])
          const isDenied = url.endsWith('/v1/connect') && !('mayEnter' in window)
          return isDenied ? Promise.resolve(new Response('', { status: 403 })) : real(...request)
        }
      },
      argument: '',
    }
    const ada = await Tab.visit(browser, `${server.url}/d/secret-${where}`, { name: 'Ada', before, ...view })
    tabs.push(ada)
    await notice(ada, 'denied')
    expect(await ada.textOf('notice-title')).toBe('You have no access to this document')
    expect(await ada.textOf('notice-text')).toBe('The server refused the connection (HTTP 403).')
    expect([await ada.textOf('status'), await ada.isWritable()]).toEqual(['No access', false])
    expect([await ada.light(), await ada.textOf('save-light')]).toEqual(['closed', 'Not open'])
    await ada.screenshot(`denied-${where}`)
    await ada.page.evaluate(() => Object.assign(window, { mayEnter: true }))
    await ada.click('notice-retry')
    await ada.connected()
    await ada.writable()
    expect(await ada.isVisible('notice')).toBe(false)
  })
})
