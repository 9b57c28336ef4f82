/** The real server as a child process, with the ways in which a test maltreats it. */

import type { ChildProcessByStdio } from 'node:child_process'
import { spawn } from 'node:child_process'
import { mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import type { Readable } from 'node:stream'

/** Where the binary is: SYNCLINE_BIN, or the debug build of this checkout. */
export function serverBinary(): string {
  return process.env['SYNCLINE_BIN'] ?? resolve(import.meta.dirname, '../../target/debug/syncline')
}

/** A start takes well under a second; this leaves room for a machine that is busy compiling. */
const START_DEADLINE_MS = 20_000

/** Small kernels limit the UDP buffers, and the server says so. */
const EXPECTED_ALARM = /the kernel limits the UDP buffers/

type Child = ChildProcessByStdio<null, Readable, Readable>

/** A server on free ports and a data directory of its own. */
export class Server {
  #child: Child
  /** `host:port` of the HTTP listener. */
  readonly http: string
  readonly webtransport: string
  readonly #data: string
  #log: string[]
  readonly #settings: Readonly<Record<string, string>>

  private constructor(child: Child, data: string, http: string, webtransport: string, log: string[], settings: Readonly<Record<string, string>>) {
    this.#settings = settings
    this.#child = child
    this.#data = data
    this.http = http
    this.webtransport = webtransport
    this.#log = log
  }

  /** `settings` as in the environment of the server: `SYNCLINE_DOCUMENT__DOCUMENT_BYTES_MAX`. */
  static async start(settings: Readonly<Record<string, string>> = {}): Promise<Server> {
    const data = mkdtempSync(join(tmpdir(), 'syncline-browser-'))
    const log: string[] = []
    const { child, http, webtransport } = await launch(data, '127.0.0.1:0', '127.0.0.1:0', log, settings)
    return new Server(child, data, http, webtransport, log, settings)
  }

  /** Where the page is opened: by name, as a person does. */
  get url(): string {
    return `http://${this.http.replace('127.0.0.1', 'localhost')}`
  }

  /** What the server wrote to standard error, for the report of a failed test. */
  get log(): string {
    return this.#log.join('')
  }

  /** `kill -9`: nothing is flushed, nobody is told. */
  async kill(): Promise<void> {
    const gone = exited(this.#child)
    this.#child.kill('SIGKILL')
    await gone
  }

  /** The same data on the same ports. */
  async restart(): Promise<void> {
    const { child } = await launch(this.#data, this.http, this.webtransport, this.#log, this.#settings)
    this.#child = child
  }

  /** Everything that a dead server had stored is gone, as after a restore from an older backup. Its certificate stays. */
  forgetDocuments(): void {
    for (const name of readdirSync(this.#data)) {
      if (/\.db|journal/.test(name)) rmSync(join(this.#data, name), { recursive: true })
    }
  }

  /** The process stops in its tracks; its sockets stay open. */
  freeze(): void {
    this.#child.kill('SIGSTOP')
  }

  thaw(): void {
    this.#child.kill('SIGCONT')
  }

  /** An orderly end, as by Ctrl-C; resolves to the exit code. */
  async stop(): Promise<number | null> {
    this.thaw()
    const gone = exited(this.#child)
    this.#child.kill('SIGTERM')
    return gone
  }

  /** Ends whatever still runs, removes the data, and fails on what the log should not hold. */
  async dispose(): Promise<void> {
    const gone = exited(this.#child)
    this.#child.kill('SIGKILL')
    await gone
    rmSync(this.#data, { recursive: true, force: true })
    const alarms = this.log.split('\n').filter((line) => / (WARN|ERROR) /.test(line) && !EXPECTED_ALARM.test(line))
    if (alarms.length > 0) throw new Error(`unexpected in the server's log:\n${alarms.join('\n')}`)
  }
}

function exited(child: Child): Promise<number | null> {
  if (child.exitCode !== null || child.signalCode !== null) return Promise.resolve(child.exitCode)
  return new Promise((done) => child.once('exit', done))
}

function launch(
  data: string,
  http: string,
  webtransport: string,
  log: string[],
  settings: Readonly<Record<string, string>>,
): Promise<{ child: Child; http: string; webtransport: string }> {
  const child = spawn(serverBinary(), ['serve', '--data', data, '--http', http, '--webtransport', webtransport], {
    stdio: ['ignore', 'pipe', 'pipe'],
    // The server takes its settings from SYNCLINE_ variables and refuses those that it does not know.
    env: { ...Object.fromEntries(Object.entries(process.env).filter(([key]) => !key.startsWith('SYNCLINE_'))), ...settings },
  })
  child.stderr.setEncoding('utf8').on('data', (text: string) => log.push(text))
  return new Promise((resolveStart, reject) => {
    const fail = (why: string): void => {
      clearTimeout(timer)
      child.kill('SIGKILL')
      reject(new Error(`the server did not start: ${why}\n${log.join('')}`))
    }
    const timer = setTimeout(() => {
      fail(`no ready line within ${START_DEADLINE_MS} ms`)
    }, START_DEADLINE_MS)
    child.once('error', (cause) => {
      fail(cause.message)
    })
    child.once('exit', (code) => {
      fail(`exit code ${code ?? 'none'}`)
    })
    let output = ''
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      output += text
      const ready = /^ready http=(\S+) webtransport=(\S+) store=/m.exec(output)
      if (ready === null) return
      clearTimeout(timer)
      child.removeAllListeners('exit')
      resolveStart({ child, http: ready[1] ?? '', webtransport: ready[2] ?? '' })
    })
  })
}
