import type { Browser } from 'puppeteer-core'
import { afterAll, afterEach, beforeAll, describe, expect, it, onTestFailed } from 'vitest'
import type { TabOptions } from './browser.js'
import { SOON, Tab } from './browser.js'
import { allowClipboard, launchBrowser } from './driver.js'
import { Server } from './server.js'

let browser: Browser
let server: Server
const tabs: Tab[] = []

beforeAll(async () => {
  browser = await launchBrowser()
  server = await Server.start()
})

afterEach(async () => {
  for (const tab of tabs.splice(0)) await tab.close()
})

afterAll(async () => {
  await browser.close()
  await server.dispose()
})

async function open(path: string, name: string, options: TabOptions = {}): Promise<Tab> {
  onTestFailed(() => {
    process.stderr.write(server.log)
  })
  const tab = await Tab.open(browser, `${server.url}${path}`, { name, ...options })
  tabs.push(tab)
  return tab
}

/** The text of the block in which this tab shows somebody else's cursor. */
function caretLine(tab: Tab): Promise<string> {
  return tab.page.evaluate(() => {
    const block = document.querySelector('.others-caret')?.closest('p')?.cloneNode(true) as HTMLElement | undefined
    for (const other of block?.querySelectorAll('.others-caret, .ProseMirror-widget') ?? []) other.remove()
    return block?.textContent ?? ''
  })
}

describe('the page', () => {
  it('shows everything that a newcomer is promised, in both lights and on a phone', async () => {
    const ada = await open('/d/first-light', 'Ada Byron')
    await ada.focus()
    await ada.page.keyboard.type('# First light\nTwo people, one page. ')
    await ada.page.keyboard.type('Every keystroke arrives at once, and the light tells what is saved.\n')
    await ada.page.keyboard.type('- The others, with their names\n')
    await ada.page.keyboard.type('What is saved, and what is only here\n\n')
    const bo = await open('/d/first-light', 'Bo Larsen', { dark: true })
    await bo.point('Two people')
    await bo.press('Home')
    for (let i = 0; i < 10; i += 1) await bo.press('Shift+ArrowRight')
    const phone = await open('/d/first-light', 'Cleo Park', { width: 390, height: 780, phone: true })
    await phone.point('only here', true)
    await expect.poll(async () => (await ada.carets()).sort(), SOON).toEqual(['Bo Larsen', 'Cleo Park'])
    await ada.saved()

    for (const tab of [ada, bo, phone]) {
      for (const testId of ['editor', 'save-light', 'carrier', 'rtt', 'people', 'doc-name', 'status', 'self', 'share']) {
        await expect.poll(() => tab.isVisible(testId), { message: testId, ...SOON }).toBe(true)
      }
      expect(await tab.textOf('doc-name')).toBe('first-light')
      expect(await tab.textOf('carrier')).toBe('WebTransport')
      expect(await tab.textOf('save-light')).toBe('Saved')
      expect(await tab.textOf('status')).toBe('Connected')
      await expect.poll(() => tab.textOf('rtt'), SOON).toMatch(/^\d+(\.\d)? ms$/)
      await expect.poll(() => tab.people(), SOON).toEqual(['Ada Byron', 'Bo Larsen', 'Cleo Park'])
      expect(await tab.isVisible('caret')).toBe(true)
      // Nothing sticks out sideways, whatever the width.
      const overflow = await tab.page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth)
      expect(overflow).toBeLessThanOrEqual(0)
    }
    await ada.screenshot('page-light')
    await bo.screenshot('page-dark')
    await phone.screenshot('page-phone')
    expect([ada, bo, phone].flatMap((tab) => tab.complaints)).toEqual([])
  })

  it('opens the welcome document at the root, and any other by query or path, with the name as it is', async () => {
    const root = await open('/', 'Ada')
    expect(await root.textOf('doc-name')).toBe('welcome')
    const query = await open(`/?doc=${encodeURIComponent('notes/å 100%')}`, 'Bo')
    expect(await query.textOf('doc-name')).toBe('notes/å 100%')
    await query.type('same')
    const path = await open(`/d/notes/${encodeURIComponent('å 100%')}`, 'Cleo')
    await path.sees('same')
  })

  it('lets a person change name and colour, for everybody at once', async () => {
    const ada = await open('/d/names', 'Ada')
    const bo = await open('/d/names', 'Bo')
    await ada.click('self')
    await ada.fill('me-name', 'Augusta Ada')
    await ada.screenshot('name')
    await ada.click('me-save')
    await expect.poll(() => bo.people(), SOON).toEqual(['Augusta Ada', 'Bo'])
  })

  it('gives out a link that opens the same document', async () => {
    const ada = await open('/?doc=shared page', 'Ada')
    await allowClipboard(ada.page, server.url)
    await ada.click('share')
    await expect.poll(() => ada.textOf('share'), SOON).toBe('Link copied')
    expect(await ada.page.evaluate(() => navigator.clipboard.readText())).toBe(`${server.url}/d/shared%20page`)
  })
})

describe('together', () => {
  it('two tabs edit over WebTransport and converge', async () => {
    const ada = await open('/d/together', 'Ada')
    const bo = await open('/d/together', 'Bo')
    expect([await ada.textOf('carrier'), await bo.textOf('carrier')]).toEqual(['WebTransport', 'WebTransport'])
    await ada.type('one\n')
    await bo.sees('one\n')
    await bo.type('two\n')
    await ada.sees('one\ntwo\n')
    // Both at the same time, in different places.
    const toStart = async (): Promise<string> => {
      await ada.press('Control+Home')
      return caretLine(bo)
    }
    // Again until it is so: Firefox tells a window that it has the focus before it gives it.
    await expect.poll(toStart, { ...SOON, interval: 200 }).toBe('one')
    await bo.press('Control+End')
    await Promise.all([ada.page.keyboard.type('a'.repeat(60)), bo.page.keyboard.type('b'.repeat(60))])
    await expect.poll(async () => (await ada.text()).length, SOON).toBe('one\ntwo\n'.length + 120)
    await bo.sees(await ada.text())
    expect(await ada.text()).toBe(`${'a'.repeat(60)}one\ntwo\n${'b'.repeat(60)}`)
    // Undo takes back one's own, never the other's.
    await ada.press('Control+z')
    await expect.poll(() => bo.text(), SOON).not.toContain('a'.repeat(60))
    expect(await bo.text()).toContain('b'.repeat(60))
    await ada.saved()
    await bo.saved()
    expect([...ada.complaints, ...bo.complaints]).toEqual([])
  })

  it('each sees the cursor of the other, with the name, where it is', async () => {
    const ada = await open('/d/cursors', 'Ada')
    const bo = await open('/d/cursors', 'Bo')
    await ada.type('here and there')
    await bo.sees('here and there')
    await expect.poll(() => bo.carets(), SOON).toEqual(['Ada'])
    const place = (): Promise<number> => bo.page.evaluate(() => document.querySelector('.others-caret')?.getBoundingClientRect().x ?? -1)
    const end = await place()
    await ada.press('Home')
    await expect.poll(place, SOON).toBeLessThan(end - 50)
    await bo.focus()
    await expect.poll(() => ada.carets(), SOON).toEqual(['Bo'])
  })

  it('a forced WebSocket works, and meets WebTransport in one document', async () => {
    const ada = await open('/d/mixed?carrier=websocket', 'Ada')
    const bo = await open('/d/mixed', 'Bo')
    expect([await ada.textOf('carrier'), await bo.textOf('carrier')]).toEqual(['WebSocket', 'WebTransport'])
    await ada.type('over TCP, ')
    await bo.sees('over TCP, ')
    await bo.type('over UDP')
    await ada.sees('over TCP, over UDP')
    await expect.poll(() => ada.people(), SOON).toEqual(['Ada', 'Bo'])
    await ada.saved()
    await ada.screenshot('websocket')
  })

  it.each([
    ['WebTransport', ''],
    ['WebSocket', '?carrier=websocket'],
  ])('whoever closes the tab is gone at once, over %s', async (carrier, query) => {
    const ada = await open(`/d/leaving-${carrier}${query}`, 'Ada')
    const bo = await open(`/d/leaving-${carrier}${query}`, 'Bo')
    expect(await bo.textOf('carrier')).toBe(carrier)
    await bo.type('bye')
    await expect.poll(() => ada.carets(), SOON).toEqual(['Bo'])
    await bo.page.close()
    const closedAt = performance.now()
    await expect.poll(() => ada.people(), SOON).toEqual(['Ada'])
    // Not by the thirty seconds after which every client forgets a silent one.
    expect(performance.now() - closedAt).toBeLessThan(5_000)
    expect(await ada.carets()).toEqual([])
  })

  it('who reloads is not there twice, and finds what was written', async () => {
    const ada = await open('/d/reload', 'Ada')
    const bo = await open('/d/reload', 'Bo')
    await bo.type('kept')
    await bo.saved()
    await bo.page.reload()
    await bo.connected()
    const backAt = performance.now()
    await bo.sees('kept')
    await expect.poll(() => ada.people(), SOON).toEqual(['Ada', 'Bo'])
    // Firefox by itself keeps the sessions of a page that was left for another ten seconds.
    expect(performance.now() - backAt).toBeLessThan(5_000)
  })
})
