// Starts the server under test: the binary that SYNCLINE_BIN names or, with SYNCLINE_BIN=reference (the default), the
// server that y-websocket bundles. Everything started here is ended here, by its process id.

import { spawn } from 'node:child_process'
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { createSocket } from 'node:dgram'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { deadline, until } from './until.mjs'

const BIN = process.env.SYNCLINE_BIN ?? 'reference'
/** Whether the reference server stands in; some expectations go beyond it. */
export const REFERENCE = BIN === 'reference'

const running = new Set()
const directories = new Set()
process.on('exit', () => {
  for (const child of running) child.kill('SIGKILL')
  if (process.env.KEEP_DATA === undefined) {
    for (const path of directories) rmSync(path, { recursive: true, force: true })
  }
})

/**
 * A port that is free for TCP and UDP, below the range that the kernel gives to clients: a server that is down for a
 * moment would otherwise find its port taken by a client that dials another server.
 */
async function freePort () {
  for (let i = 0; i < 200; i++) {
    const port = 12000 + Math.floor(Math.random() * 18000)
    const tcp = createServer()
    const udp = createSocket('udp4')
    try {
      await new Promise((resolve, reject) => tcp.once('error', reject).listen(port, '127.0.0.1', resolve))
      await new Promise((resolve, reject) => udp.once('error', reject).bind(port, '127.0.0.1', resolve))
      return port
    } catch {
      continue
    } finally {
      await new Promise(resolve => tcp.close(resolve))
      await new Promise(resolve => { try { udp.close(resolve) } catch { resolve() } })
    }
  }
  throw new Error('no free port')
}

/** Ends every server that this process started, whatever became of the test that did. */
export async function stopAll () {
  await Promise.all([...running].map(child => new Promise(resolve => {
    child.once('exit', resolve)
    child.kill('SIGKILL')
  })))
}

function launch (data, httpAddress, webtransportAddress, log, config) {
  const args = ['serve', '--data', data, '--http', httpAddress, '--webtransport', webtransportAddress]
  if (config !== undefined && !REFERENCE) {
    const file = join(data, 'config.toml')
    writeFileSync(file, config)
    args.push('--config', file)
  }
  const command = REFERENCE
    ? [process.execPath, [join(dirname(fileURLToPath(import.meta.url)), 'reference-server.mjs'), ...args]]
    : [BIN, args]
  // The server reads SYNCLINE_* as its configuration and refuses what it does not know, SYNCLINE_BIN among it.
  const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('SYNCLINE_')))
  return spawn(...command, { env, stdio: ['ignore', 'pipe', log] })
}

export class Server {
  /**
   * Starts a server with a fresh data directory on free ports of the loopback.
   * @param {{ config?: string }} options the text of a configuration file
   */
  static async start ({ config } = {}) {
    const server = new Server()
    server.config = config
    server.data = mkdtempSync(join(tmpdir(), 'syncline-interop-'))
    directories.add(server.data)
    server.http = `127.0.0.1:${await freePort()}`
    server.webtransport = `127.0.0.1:${await freePort()}`
    await server.up()
    return server
  }

  /** Starts the process again: same data, same ports. */
  async up () {
    const log = openSync(join(this.data, 'server.log'), 'a')
    const child = launch(this.data, this.http, this.webtransport, log, this.config)
    closeSync(log)
    running.add(child)
    this.child = child
    this.exited = new Promise(resolve => child.once('exit', (code, signal) => {
      running.delete(child)
      child.over = { code, signal }
      resolve(child.over)
    }))
    const ready = new Promise((resolve, reject) => {
      let text = ''
      child.stdout.setEncoding('utf8')
      child.stdout.on('data', chunk => {
        text += chunk
        const line = /^ready http=(\S+) webtransport=(\S+)/m.exec(text)
        if (line) resolve(line)
      })
      child.once('error', reject)
      child.once('exit', (code, signal) =>
        reject(new Error(`the server ended before it was ready (code ${code}, signal ${signal})\n${this.log()}`)))
    })
    const [, http, webtransport] = await deadline(ready, 20000, 'the ready line').catch(error => {
      child.kill('SIGKILL')
      throw new Error(`${error.message}\n${this.log()}`)
    })
    if (http !== this.http) throw new Error(`the server listens on ${http}, not on ${this.http}`)
    if (!REFERENCE && webtransport !== this.webtransport) throw new Error(`WebTransport on ${webtransport}, not on ${this.webtransport}`)
  }

  get pid () {
    return this.child.pid
  }

  /** Whether the process that `up` started last still runs. */
  get alive () {
    return this.child.over === undefined
  }

  /** The URL to hand to a y-websocket provider: it appends `/` and the document's name. */
  get yjs () {
    return `ws://${this.http}/yjs`
  }

  /** The last lines of what the server wrote to standard error. */
  log () {
    const text = readFileSync(join(this.data, 'server.log'), 'utf8')
    return `server log:\n${text.slice(-4000)}`
  }

  /** Resident memory now, in bytes. */
  rss () {
    const status = readFileSync(`/proc/${this.pid}/status`, 'utf8')
    return Number(/^VmRSS:\s+(\d+) kB/m.exec(status)[1]) * 1024
  }

  async kill () {
    this.child.kill('SIGKILL')
    await deadline(this.exited, 5000, 'the end of a killed server')
  }

  /** Asks the server to stop and waits until it has; returns how it ended. */
  async term () {
    this.child.kill('SIGTERM')
    return deadline(this.exited, 15000, 'the end of a server that was asked to stop').catch(error => {
      this.child.kill('SIGKILL')
      throw new Error(`${error.message}\n${this.log()}`)
    })
  }

  async restart ({ hard = true } = {}) {
    await (hard ? this.kill() : this.term())
    await this.up()
  }

  /** Ends the server and removes its data. */
  async stop () {
    if (this.alive) await this.kill()
    await until(() => !this.alive, { what: 'the end of the server' })
    if (process.env.KEEP_DATA === undefined) rmSync(this.data, { recursive: true, force: true })
  }
}
