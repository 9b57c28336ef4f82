/**
 * The two browsers behind one interface. Puppeteer drives both: Chromium over its own protocol, Firefox over
 * WebDriver BiDi, which Debian's build speaks as it is. What one of them cannot do is said here and nowhere else.
 */

import type { Browser, Page } from 'puppeteer-core'
import puppeteer from 'puppeteer-core'

/** Which browser this run is about; each vitest project sets its own. */
export type BrowserName = 'chromium' | 'firefox'

export const BROWSER: BrowserName = process.env['SYNCLINE_BROWSER'] === 'firefox' ? 'firefox' : 'chromium'

/** Where the browsers are. */
export const EXECUTABLES: Readonly<Record<BrowserName, string>> = {
  chromium: process.env['CHROMIUM_BIN'] ?? '/usr/bin/chromium',
  firefox: process.env['FIREFOX_BIN'] ?? '/usr/bin/firefox-esr',
}

const CHROMIUM_ARGUMENTS = [
  '--no-sandbox',
  '--disable-gpu',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
]

const FIREFOX_PREFERENCES = {
  // A test writes to the clipboard and reads it, as a person would who allowed it.
  'dom.events.testing.asyncClipboard': true,
  // A screenshot shows what is, not what is on its way.
  'ui.prefersReducedMotion': 1,
  // Nothing of Firefox's own goes to the network or over the page.
  'app.update.enabled': false,
  'datareporting.policy.dataSubmissionEnabled': false,
  'browser.safebrowsing.malware.enabled': false,
  'network.captive-portal-service.enabled': false,
  'network.connectivity-service.enabled': false,
}

/** How a page is looked at. */
export interface View {
  readonly width?: number
  readonly height?: number
  /** Dark colours. Firefox takes them only from its profile, so there the page stays light. */
  readonly dark?: boolean
  /** A phone: touch, two dots a pixel, the mobile viewport. Firefox has the size only. */
  readonly phone?: boolean
}

/** One browser for a test file. */
export function launchBrowser(): Promise<Browser> {
  return BROWSER === 'firefox'
    ? puppeteer.launch({
        browser: 'firefox',
        executablePath: EXECUTABLES.firefox,
        extraPrefsFirefox: FIREFOX_PREFERENCES,
        defaultViewport: null,
      })
    : puppeteer.launch({
        browser: 'chrome',
        executablePath: EXECUTABLES.chromium,
        args: CHROMIUM_ARGUMENTS,
        defaultViewport: null,
      })
}

/** A page of somebody else: cookies, storage and focus are shared with no other page. */
export async function newPage(browser: Browser, view: View = {}): Promise<Page> {
  const { width = 1180, height = 780, dark = false, phone = false } = view
  const context = await browser.createBrowserContext()
  // A window and not a tab: a tab behind another is hidden, and gets timers once a second.
  const page = await context.newPage({ type: 'window' })
  if (BROWSER === 'chromium') {
    await page.emulateFocusedPage(true)
    await page.setViewport({ width, height, isMobile: phone, hasTouch: phone, deviceScaleFactor: phone ? 2 : 1 })
    await page.emulateMediaFeatures([
      { name: 'prefers-color-scheme', value: dark ? 'dark' : 'light' },
      { name: 'prefers-reduced-motion', value: 'reduce' },
    ])
  } else {
    await page.setViewport({ width, height, deviceScaleFactor: phone ? 2 : 1 })
  }
  return page
}

/** Lets the page use the clipboard without asking. */
export async function allowClipboard(page: Page, origin: string): Promise<void> {
  // Firefox knows no such permissions; its preference above stands in.
  if (BROWSER === 'firefox') return
  const state = 'granted'
  await page
    .browserContext()
    .setPermission(
      origin,
      { permission: { name: 'clipboard-read' }, state },
      { permission: { name: 'clipboard-write', allowWithoutSanitization: true }, state },
      { permission: { name: 'clipboard-write' }, state },
    )
}

/** What browsers write to the console about connections that a test breaks on purpose. */
export const CONNECTION_NOISE = /net::ERR_|WebSocket connection|WebTransport|can.t establish a connection|NetworkError|interrupted while the page/
