/** The demo page, in the words of the tests. */

import { join } from 'node:path'
import type { Browser, Page } from 'puppeteer-core'
import { expect } from 'vitest'
import type { View } from './driver.js'
import { BROWSER, CONNECTION_NOISE, newPage } from './driver.js'

/** Where screenshots go. Not kept in the repository. */
export const OUT = join(import.meta.dirname, 'out')

/** Everything that a page waits for is a matter of milliseconds; this is for a machine under load. */
export const SOON = { timeout: 10_000, interval: 25 }

/** What the save light can say. */
export type Light = 'local' | 'saving' | 'saved' | 'frozen' | 'closed'

/** What a tab is opened with. */
export interface TabOptions extends View {
  /** The person's name; made up by the page when not given. */
  readonly name?: string
  /** Runs in the page before anything else, with `argument`. */
  readonly before?: { readonly run: (argument: string) => void; readonly argument: string }
}

/** One tab on one document, in a browser context of its own: another person. */
export class Tab {
  /** What the page complained about; a test that expects none says so. */
  readonly complaints: string[] = []
  readonly page: Page

  private constructor(page: Page) {
    this.page = page
    page.on('pageerror', (error) => this.complaints.push(error instanceof Error ? error.message : String(error)))
    page.on('console', (message) => {
      // A browser reports each refused connection of an outage; those are the outage's.
      if (message.type() === 'error' && !CONNECTION_NOISE.test(message.text())) this.complaints.push(message.text())
    })
  }

  /** Opens the address, and waits for nothing more. */
  static async visit(browser: Browser, url: string, { name, before, ...view }: TabOptions = {}): Promise<Tab> {
    const page = await newPage(browser, view)
    if (name !== undefined) {
      const person = JSON.stringify({ name, color: COLOURS[nOpened++ % COLOURS.length] })
      await page.evaluateOnNewDocument((value) => {
        // The empty page of a new window has no origin, and so no storage.
        if (self.origin !== 'null') sessionStorage.setItem('syncline.person', value)
      }, person)
    }
    if (before !== undefined) await page.evaluateOnNewDocument(before.run, before.argument)
    const tab = new Tab(page)
    inFront = undefined
    await page.goto(url)
    return tab
  }

  /** Opens the document and waits until it can be written in. */
  static async open(browser: Browser, url: string, options: TabOptions = {}): Promise<Tab> {
    const tab = await Tab.visit(browser, url, options)
    await tab.connected()
    await tab.writable()
    return tab
  }

  async connected(within = SOON.timeout): Promise<void> {
    await expect.poll(() => this.attribute('status', 'data-status'), { ...SOON, timeout: within }).toBe('connected')
  }

  async writable(): Promise<void> {
    await expect.poll(() => this.isWritable(), SOON).toBe(true)
  }

  isWritable(): Promise<boolean> {
    return this.page.evaluate(() => document.querySelector('.ProseMirror')?.getAttribute('contenteditable') === 'true')
  }

  attribute(testId: string, name: string): Promise<string | null> {
    return this.page.evaluate(
      (testId, name) => document.querySelector(`[data-testid="${testId}"]`)?.getAttribute(name) ?? null,
      testId,
      name,
    )
  }

  /** The text as it is shown; nothing when the element is not there or hidden. */
  textOf(testId: string): Promise<string> {
    return this.page.evaluate(
      (testId) => document.querySelector<HTMLElement>(`[data-testid="${testId}"]`)?.innerText ?? '',
      testId,
    )
  }

  isVisible(testId: string): Promise<boolean> {
    return this.page.evaluate((testId) => document.querySelector(`[data-testid="${testId}"]`)?.checkVisibility() ?? false, testId)
  }

  async click(testId: string): Promise<void> {
    await this.#toFront()
    await this.page.locator(`[data-testid="${testId}"]`).setTimeout(SOON.timeout).click()
  }

  /** Empties a field and types into it. */
  async fill(testId: string, text: string): Promise<void> {
    await this.page.locator(`[data-testid="${testId}"]`).setTimeout(SOON.timeout).fill(text)
  }

  /** Sets the cursor by a click, or a finger, on a piece of the document's text. */
  async point(text: string, finger = false): Promise<void> {
    await this.#toFront()
    const handle = await this.page.waitForSelector(`.ProseMirror ::-p-text(${text})`, { timeout: SOON.timeout })
    if (finger && BROWSER === 'chromium') await handle?.tap()
    else await handle?.click()
    await handle?.dispose()
  }

  /** The document's text, one line for each block, without other people's names. */
  text(): Promise<string> {
    return this.page.evaluate(() => {
      const editor = document.querySelector('.ProseMirror')
      if (editor === null) return ''
      const copy = editor.cloneNode(true) as HTMLElement
      for (const other of copy.querySelectorAll('.others-caret, .ProseMirror-widget')) other.remove()
      return [...copy.children].map((block) => block.textContent).join('\n')
    })
  }

  /** The names at the cursors of the others. */
  carets(): Promise<string[]> {
    return this.page.evaluate(() => [...document.querySelectorAll('.others-caret-name')].map((label) => label.textContent))
  }

  /** The names of everybody who is shown as present, in alphabetical order. */
  async people(): Promise<string[]> {
    const names = await this.page.evaluate(() =>
      [...document.querySelectorAll<HTMLElement>('[data-testid="person"]')].map((item) => item.dataset['name'] ?? ''),
    )
    return names.sort()
  }

  light(): Promise<Light> {
    return this.attribute('save-light', 'data-state') as Promise<Light>
  }

  /** Presses keys together, the last of them while the others are down: `Shift+ArrowRight`. */
  async press(chord: string): Promise<void> {
    await this.#toFront()
    const keys = chord.split('+') as Parameters<Page['keyboard']['press']>[0][]
    const last = keys.pop()
    if (last === undefined) return
    for (const key of keys) await this.page.keyboard.down(key)
    await this.page.keyboard.press(last)
    for (const key of keys.reverse()) await this.page.keyboard.up(key)
  }

  async focus(): Promise<void> {
    await this.#toFront()
    await this.page.focus('.ProseMirror')
  }

  /** Types at the end of the document. */
  async type(text: string): Promise<void> {
    await this.focus()
    await this.press('Control+End')
    await this.page.keyboard.type(text)
  }

  async sees(text: string): Promise<void> {
    await expect.poll(() => this.text(), SOON).toBe(text)
  }

  async saved(): Promise<void> {
    await expect.poll(() => this.light(), SOON).toBe('saved')
  }

  async screenshot(name: string): Promise<void> {
    await this.page.screenshot({ path: join(OUT, `${name}-${BROWSER}.png`) })
  }

  async close(): Promise<void> {
    await this.page.browserContext().close()
  }

  /**
   * Moves of the cursor are events of the window that has the focus, and Firefox emulates none. The editor puts its
   * own selection back 20 ms after its window got the focus, so a key that comes earlier would be undone.
   */
  async #toFront(): Promise<void> {
    if (inFront === this.page) return
    inFront = this.page
    await this.page.bringToFront()
    await this.page.evaluate(() => new Promise((resolve) => setTimeout(resolve, 60)))
  }
}

const COLOURS = ['#3b6ea8', '#b34d6d', '#3f7d5e', '#8256a8']
let nOpened = 0
/** The tab that was brought to the front last; Firefox tells every window that it has the focus. */
let inFront: Page | undefined
