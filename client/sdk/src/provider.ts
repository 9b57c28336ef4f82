/**
 * The provider: what an application sees. A superset of y-websocket's, so that every editor binding
 * takes it as it is, with the truth about what is saved on top.
 */

import { ObservableV2 } from 'lib0/observable'
import { Awareness } from 'y-protocols/awareness'
import * as Y from 'yjs'
import type { Connection } from './connection.js'
import type { Lease } from './connections.js'
import { acquire, normalizeBaseUrl } from './connections.js'
import type { Access, Rejection } from './document.js'
import { SyncedDocument } from './document.js'
import type { SaveState } from './ledger.js'
import type { Carrier } from './link/link.js'
import type { WebSocketConstructor } from './link/websocket.js'
import { Presence } from './presence.js'
import type { Failure, Goaway } from './session.js'

/**
 * Where the provider stands. The first three are y-websocket's. The others are final until
 * `connect` is called: `replaced`, another history lives under this name on the server; `denied`, this
 * client may not have the document; `closed`, any other condition that a retry cannot help.
 */
export type Status = 'connecting' | 'connected' | 'disconnected' | 'replaced' | 'denied' | 'closed'

/** Options of a provider, all with defaults. */
export interface SynclineProviderOptions {
  /** Presence to share; made, and destroyed with the provider, when not given. */
  awareness?: Awareness
  /** Connect at once; default true. */
  connect?: boolean
  /** `read` never sends an edit. Default `write`; the server may grant less. */
  access?: Access
  /** Carriers to use, best first. Default: WebTransport, then WebSocket. */
  carriers?: readonly Exclude<Carrier, 'memory'>[]
  /** A WebSocket constructor for runtimes that have none, such as Node before version 22. */
  WebSocketPolyfill?: WebSocketConstructor
  /** A connection to use instead of the shared one for the URL. For tests. */
  connection?: Connection
}

/** What became of the local edits. */
export interface SavedEvent {
  /** True when every local edit is durable on the server. */
  readonly saved: boolean
  /** How many are not. */
  readonly pending: number
  /** `local`: some are only here. `saving`: all are sent. `saved`: all are durable. */
  readonly state: SaveState
}

/** The events, by name. */
// A type and not an interface: lib0's observable wants an index signature.
export type SynclineProviderEvents = {
  status: (event: { status: Status }) => void
  sync: (synced: boolean, provider: SynclineProvider) => void
  synced: (synced: boolean, provider: SynclineProvider) => void
  saved: (event: SavedEvent) => void
  /** The carrier that is in use now; null when none is. */
  carrier: (event: { carrier: Carrier | null }) => void
  /** A round trip was measured; milliseconds. */
  rtt: (ms: number) => void
  /** What the server grants. */
  access: (event: { access: Access }) => void
  /** A connection, or the document's channel, was lost. Another attempt follows. */
  'connection-close': (event: Failure, provider: SynclineProvider) => void
  /** A connection could not be had. Another attempt follows. */
  'connection-error': (event: Failure, provider: SynclineProvider) => void
  /** A condition that a retry cannot help. No attempt follows. */
  closed: (event: Failure, provider: SynclineProvider) => void
  /** An edit was refused. */
  rejected: (event: Rejection, provider: SynclineProvider) => void
  /** The server's history is another one; the local copy was set aside, not merged. */
  replaced: (provider: SynclineProvider) => void
  /**
   * The server is about to stop or to be emptied. The connection moves by itself within the window, and
   * nothing is interrupted where another server takes it.
   */
  goaway: (event: Goaway) => void
  /** The server lacked something that it should have had, and asked for it. */
  'sync-request': () => void
  /** An application's own message from another client. */
  message: (body: Uint8Array) => void
  destroy: (provider: SynclineProvider) => void
}

/** Codes that mean "not you" and not "not now". */
const DENIED: readonly Failure['code'][] = ['auth_required', 'auth_expired', 'revoked', 'permission_denied', 'not_found']

/** Keeps a `Y.Doc` in step with the document `name` of the Syncline server at `url`. */
export class SynclineProvider extends ObservableV2<SynclineProviderEvents> {
  /** The server's HTTP base. */
  readonly url: string
  /** The document's name; y-websocket calls it so. */
  readonly roomname: string
  readonly doc: Y.Doc
  readonly awareness: Awareness
  /** False after `disconnect`, `destroy` and every final condition. */
  shouldConnect = false
  readonly #lease: Lease
  readonly #ownsAwareness: boolean
  readonly #document: SyncedDocument
  #status: Status = 'disconnected'
  #synced = false
  #lastSaved: SavedEvent
  #lastDurable = 0
  #carrier: Carrier | null = null
  #destroyed = false

  constructor(url: string, name: string, doc: Y.Doc, options: SynclineProviderOptions = {}) {
    super()
    this.url = normalizeBaseUrl(url)
    this.roomname = name
    this.doc = doc
    this.#ownsAwareness = options.awareness === undefined
    this.awareness = options.awareness ?? new Awareness(doc)
    this.#lease =
      options.connection === undefined
        ? acquire({
            baseUrl: this.url,
            carriers: options.carriers ?? ['webtransport', 'websocket'],
            webSocket: options.WebSocketPolyfill,
          })
        : { connection: options.connection, release: () => undefined }
    this.#document = new SyncedDocument({
      name,
      doc,
      presence: new Presence(this.awareness, this),
      access: options.access ?? 'write',
      origin: this,
      random: Math.random,
      observer: {
        onConnecting: () => {
          this.#setStatus('connecting')
        },
        onOpened: () => {
          this.#setCarrier(this.#lease.connection.carrier ?? null)
          this.#setStatus('connected')
          this.#setSynced(true)
        },
        onLost: (failure) => {
          const wasUp = this.#status === 'connected'
          this.#down('disconnected')
          this.emit(wasUp ? 'connection-close' : 'connection-error', [failure, this])
        },
        onStopped: (failure) => {
          this.#giveUp(DENIED.includes(failure.code) ? 'denied' : 'closed')
          this.emit('closed', [failure, this])
        },
        onReplaced: () => {
          this.#giveUp('replaced')
          this.emit('replaced', [this])
        },
        onRejected: (rejection) => {
          this.emit('rejected', [rejection, this])
        },
        onAccess: (access) => {
          this.emit('access', [{ access }])
        },
        onMoved: () => {
          this.#setCarrier(this.#lease.connection.carrier ?? null)
        },
        onGoaway: ({ reason, reconnectMinMs, reconnectMaxMs }) => {
          this.emit('goaway', [{ reason, reconnectMinMs, reconnectMaxMs }])
        },
        onSyncRequest: () => {
          this.emit('sync-request', [])
        },
        onLedger: () => {
          this.#tellSaved()
        },
        onMessage: (body) => {
          this.emit('message', [body])
        },
        onRtt: (ms) => {
          if (this.#status === 'connected') this.emit('rtt', [ms])
        },
      },
    })
    this.#lastSaved = this.#savedEvent()
    doc.on('destroy', this.#onDocDestroy)
    if (options.connect !== false) this.connect()
  }

  get document(): Y.Doc {
    return this.doc
  }

  get status(): Status {
    return this.#status
  }

  get wsconnected(): boolean {
    return this.#status === 'connected'
  }

  get wsconnecting(): boolean {
    return this.#status === 'connecting'
  }

  /** True while the document holds everything that the server has. */
  get synced(): boolean {
    return this.#synced
  }

  /** How many local edits are not durable on the server. */
  get pending(): number {
    return this.#document.pending
  }

  get saveState(): SaveState {
    return this.#document.saveState
  }

  /** The carrier in use, or null. */
  get carrier(): Carrier | null {
    return this.#carrier
  }

  /** The latest round trip to the server in milliseconds, or null. */
  get rtt(): number | null {
    return this.#status === 'connected' ? (this.#lease.connection.rttMs ?? null) : null
  }

  /** What the server grants. */
  get access(): Access {
    return this.#document.access
  }

  /** True after a terminal refusal: local edits are kept here and no longer sent. */
  get frozen(): boolean {
    return this.#document.frozen
  }

  /** Resolves when the document is in step with the server; at once when it is. Rejects on destroy. */
  get whenSynced(): Promise<void> {
    return this.#when('synced', () => this.#synced)
  }

  /** Resolves when every edit made so far is durable. Edits made later do not delay it. */
  get whenSaved(): Promise<void> {
    const edited = this.#document.edited
    return this.#when('saved', () => this.#document.durableUpTo >= edited)
  }

  /** Connects, and stays connected until told otherwise. Does nothing when it is so already. */
  connect(): void {
    // A replaced history stays replaced: joining it takes a fresh document.
    if (this.#destroyed || this.shouldConnect || this.#status === 'replaced') return
    this.shouldConnect = true
    this.#document.revive()
    this.#setStatus('connecting')
    this.#lease.connection.attach(this.#document)
  }

  /** Leaves the document; edits made meanwhile are kept and sent on the next `connect`. */
  disconnect(): void {
    if (!this.shouldConnect) return
    this.shouldConnect = false
    this.#document.leave()
    this.#lease.connection.detach(this.#document)
    this.#down('disconnected')
  }

  /** The whole local copy as one Yjs update, for a person whose document was replaced or frozen. */
  exportLocal(): Uint8Array {
    return Y.encodeStateAsUpdate(this.doc)
  }

  /**
   * A new document with the same content, for work that the server has refused to go on in. What the
   * server holds keeps its authors; everything else gets fresh ones, since a server that has refused an
   * edit can take nothing more of its author. Give it to a provider of its own: under another name, or
   * under this one when the reason for the refusal is gone. After `replaced` another name is the only
   * right one: this one holds another history. The original is left as it is.
   */
  fork(): Y.Doc {
    return this.#document.fork()
  }

  /** Broadcasts an application's own bytes to everyone who has the document open; not stored. */
  broadcast(body: Uint8Array): void {
    this.#document.broadcast(body)
  }

  /** Leaves for good and stops every timer. */
  override destroy(): void {
    if (this.#destroyed) return
    this.disconnect()
    this.#destroyed = true
    this.doc.off('destroy', this.#onDocDestroy)
    this.#document.destroy()
    this.#lease.connection.detach(this.#document)
    this.#lease.release()
    if (this.#ownsAwareness) this.awareness.destroy()
    this.emit('destroy', [this])
    super.destroy()
  }

  readonly #onDocDestroy = (): void => {
    this.destroy()
  }

  #giveUp(status: 'replaced' | 'denied' | 'closed'): void {
    this.shouldConnect = false
    this.#lease.connection.detach(this.#document)
    this.#down(status)
  }

  #down(status: Status): void {
    this.#setCarrier(null)
    this.#setSynced(false)
    this.#setStatus(status)
  }

  #setStatus(status: Status): void {
    if (this.#status === status) return
    this.#status = status
    this.emit('status', [{ status }])
  }

  #setSynced(synced: boolean): void {
    if (this.#synced === synced) return
    this.#synced = synced
    this.emit('synced', [synced, this])
    this.emit('sync', [synced, this])
  }

  #setCarrier(carrier: Carrier | null): void {
    if (this.#carrier === carrier) return
    this.#carrier = carrier
    this.emit('carrier', [{ carrier }])
  }

  #savedEvent(): SavedEvent {
    const pending = this.#document.pending
    return { saved: pending === 0, pending, state: this.#document.saveState }
  }

  #tellSaved(): void {
    const event = this.#savedEvent()
    const durable = this.#document.durableUpTo
    // An edit made in the same moment in which another became durable leaves the count as it was.
    const same = event.pending === this.#lastSaved.pending && event.state === this.#lastSaved.state
    if (same && durable === this.#lastDurable) return
    this.#lastSaved = event
    this.#lastDurable = durable
    this.emit('saved', [event])
  }

  #when(event: 'synced' | 'saved', reached: () => boolean): Promise<void> {
    return new Promise((resolve, reject) => {
      if (reached()) {
        resolve()
        return
      }
      if (this.#destroyed) {
        reject(new Error('the provider was destroyed'))
        return
      }
      const settle = (): void => {
        this.off(event, onEvent)
        this.off('destroy', onDestroy)
      }
      const onEvent = (): void => {
        if (!reached()) return
        settle()
        resolve()
      }
      const onDestroy = (): void => {
        settle()
        reject(new Error('the provider was destroyed'))
      }
      this.on(event, onEvent)
      this.on('destroy', onDestroy)
    })
  }
}
