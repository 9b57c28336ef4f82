/** Says what is missing before the first test, in words that tell what to do. */

import { accessSync, constants, mkdirSync } from 'node:fs'
import { OUT } from './browser.js'
import { EXECUTABLES } from './driver.js'
import { serverBinary } from './server.js'

export default function setup(): void {
  for (const [what, path] of [
    ['the server binary (set SYNCLINE_BIN)', serverBinary()],
    ['Chromium (apt-get install chromium, or set CHROMIUM_BIN)', EXECUTABLES.chromium],
    ['Firefox (apt-get install firefox-esr, or set FIREFOX_BIN)', EXECUTABLES.firefox],
  ] as const) {
    try {
      accessSync(path, constants.X_OK)
    } catch {
      throw new Error(`${what} is not at ${path}`)
    }
  }
  mkdirSync(OUT, { recursive: true })
}
