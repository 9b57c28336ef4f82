/**
 * The connections of this page, one for each server and way to reach it, shared by all providers.
 */

import { Connection } from './connection.js'
import { discover, probe } from './discovery.js'
import type { Carrier, Dialer } from './link/link.js'
import type { WebSocketConstructor } from './link/websocket.js'
import { websocketDialer } from './link/websocket.js'
import { localKeep, NO_KEEP, QuicMemory } from './quic-memory.js'
import { hasWebTransport, webtransportDialer } from './link/webtransport.js'

interface Entry {
  readonly connection: Connection
  nUsers: number
}

/** Node before version 22 has no WebSocket, and no runtime but a page has a location. */
const runtime: { WebSocket?: WebSocketConstructor; location?: Location } = globalThis

const entries = new Map<string, Entry>()

/** What tells one shared connection from another. */
export interface ConnectionKey {
  /** The server's HTTP base, without a slash at its end. */
  readonly baseUrl: string
  /** Carriers to use, best first. */
  readonly carriers: readonly Carrier[]
  /** Only needed where the runtime has no WebSocket. */
  readonly webSocket: WebSocketConstructor | undefined
}

/** A share in a connection; give it back exactly once. */
export interface Lease {
  readonly connection: Connection
  release(): void
}

/** Takes a share in the connection with this key, making it when nobody has it. */
export function acquire(key: ConnectionKey): Lease {
  const name = `${key.baseUrl} ${key.carriers.join()}`
  const entry = entries.get(name) ?? { connection: create(key), nUsers: 0 }
  entries.set(name, entry)
  entry.nUsers += 1
  let released = false
  return {
    connection: entry.connection,
    release: () => {
      if (released) return
      released = true
      entry.nUsers -= 1
      if (entry.nUsers === 0) entries.delete(name)
    },
  }
}

function create(key: ConnectionKey): Connection {
  return new Connection({
    discover: (signal) => discover(key.baseUrl, signal),
    probe: (signal) => probe(key.baseUrl, signal),
    quic: new QuicMemory(hasWebTransport() ? localKeep(key.baseUrl) : NO_KEEP),
    random: Math.random,
    dialers: (endpoints) => {
      const dialers: Dialer[] = []
      for (const carrier of key.carriers) {
        if (carrier === 'webtransport' && endpoints.webtransport !== undefined && hasWebTransport()) {
          dialers.push(webtransportDialer(endpoints.webtransport.url, endpoints.webtransport.certificateHashes))
        }
        const constructor = key.webSocket ?? runtime.WebSocket
        if (carrier === 'websocket' && constructor !== undefined) {
          dialers.push(websocketDialer(endpoints.websocketUrl, constructor))
        }
      }
      return dialers
    },
  })
}

/** The base URL in the one form that is used as a key: http(s), no slash, query or hash at its end. */
export function normalizeBaseUrl(url: string): string {
  const parsed = new URL(url, runtime.location?.href)
  parsed.protocol = parsed.protocol.replace(/^ws/, 'http')
  parsed.search = ''
  parsed.hash = ''
  return parsed.href.replace(/\/+$/, '')
}
