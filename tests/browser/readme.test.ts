/** The ten lines of the SDK's README, pasted and run. */

import { readFileSync } from 'node:fs'
import { resolve } from 'node:path'
import type { Browser } from 'puppeteer-core'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { SOON } from './browser.js'
import { CLIENT } from './bundle.js'
import { launchBrowser, newPage } from './driver.js'
import { PageServer } from './page.js'
import { Server } from './server.js'

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

it('works when pasted', async () => {
  const readme = readFileSync(resolve(CLIENT, 'sdk/README.md'), 'utf8')
  const code = /```js\n(.*?)```/s.exec(readme)?.[1] ?? ''
  expect(code.trim().split('\n').length).toBeLessThanOrEqual(10)
  const pages = await PageServer.start(code.replace('http://localhost:8080', server.url))
  const page = await newPage(browser)
  const lines: string[] = []
  page.on('console', (message) => {
    if (message.type() === 'log') lines.push(message.text())
  })
  await page.goto(pages.url)
  await expect.poll(() => lines, SOON).toEqual(['saved, over webtransport: Hello. '])
  await page.close()
  await pages.stop()
})
