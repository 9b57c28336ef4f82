/**
 * One session with a server over one link: greeting, heartbeat, and the channels of its documents.
 * It ends once, for whatever reason, and says why; deciding what to do next is the connection's.
 */

import type { Carrier, Link, LinkClosed, LinkHandlers } from './link/link.js'
import { CONTROL_CHANNEL } from './link/link.js'
import { decodeServer, encodeClient, errorName, errorNameOfCloseCode, isFinalWebSocketCode, LIMIT } from './protocol/index.js'
import { guarded } from './report.js'
import type { ErrorName, ServerMessage, Welcome } from './protocol/index.js'

/** The protocol's names for what a server may refuse with, and `network` for everything else. */
export type FailureCode = ErrorName | 'network'

/** Why a session, a document or an attempt ended. */
export interface Failure {
  readonly code: FailureCode
  /** Text for a person. */
  readonly message: string
  /** False when a retry cannot help: the SDK then stops and says so. */
  readonly retryable: boolean
  /** The server asks not to come back earlier; milliseconds. */
  readonly retryAfterMs: number
}

/** The server asks its clients to be elsewhere between these two times from now. */
export interface Goaway {
  /** Text for a person. */
  readonly reason: string
  readonly reconnectMinMs: number
  readonly reconnectMaxMs: number
}

/** What a document sees of its channel. */
export interface Channel {
  readonly id: number
  send(message: Uint8Array): void
  /** False when it was not taken; it then belongs on the channel. */
  datagram(body: Uint8Array): boolean
  /** No more from either side: what still arrives is dropped. */
  finish(): void
}

/** What a channel reports to its document. */
export interface ChannelHandlers {
  onMessage(message: ServerMessage): void
  /** A presence datagram. */
  onDatagram(body: Uint8Array): void
  /** The channel ended without a CLOSED. */
  onEnd(): void
}

/** What a session reports to its connection. */
export interface SessionObserver {
  onWelcome(session: Session, welcome: Welcome): void
  onEnd(session: Session, failure: Failure): void
  /** Any message arrived: a moment to do what timers are too lazy for in a hidden tab. */
  onPulse(): void
  onRtt(session: Session, ms: number): void
  /** Nothing was heard for a while although an answer was due. */
  onSilence(session: Session): void
  /** The server wants to be rid of us. */
  onGoaway(session: Session, goaway: Goaway): void
}

/** A server that took the link and does not greet is not one. */
const WELCOME_DEADLINE_MS = 10_000

/** How often the round trip is measured and silence is looked at. */
const TICK_MS = 5_000

/** The first measurement after the one at WELCOME, when page and server have settled. */
const FIRST_TICK_MS = 1_000

/** Until WELCOME says otherwise: either side is dead after this long without any message. */
const DEAD_AFTER_MS = 25_000

/** Whatever is sent is answered within a round trip; after this long without, something is wrong. */
const SILENCE_MS = 1_500

/** After a sleep, and when the network has changed: this long for any sign of life. */
const GRACE_MS = 5_000

/** One session. Make it, hand it to a dialer as handlers, then `start` it on the link. */
export class Session implements LinkHandlers {
  readonly #observer: SessionObserver
  readonly #channels = new Map<number, ChannelHandlers>()
  #limits: ReadonlyMap<number, number> = new Map()
  #link: Link | undefined
  #ended = false
  #welcomed = false
  #nextChannel = CONTROL_CHANNEL + 1
  #deadAfterMs = DEAD_AFTER_MS
  #lastHeardAt = 0
  #lastTickAt = 0
  #tick: ReturnType<typeof setTimeout> | undefined
  #deadline: ReturnType<typeof setTimeout> | undefined
  #silence: ReturnType<typeof setTimeout> | undefined

  constructor(observer: SessionObserver) {
    this.#observer = observer
  }

  /** The largest update, and the largest diff, that the server takes; bytes. */
  get limits(): { readonly updateBytes: number; readonly diffBytes: number } {
    return {
      updateBytes: this.#limits.get(LIMIT.updateBytes) ?? Number.POSITIVE_INFINITY,
      diffBytes: this.#limits.get(LIMIT.initialSyncBytes) ?? Number.POSITIVE_INFINITY,
    }
  }

  get carrier(): Carrier | undefined {
    return this.#link?.carrier
  }

  /** Greets the server. */
  start(link: Link, hello: Uint8Array): void {
    this.#link = link
    this.#lastHeardAt = performance.now()
    this.#expect(WELCOME_DEADLINE_MS, 'the server did not greet')
    link.open(CONTROL_CHANNEL, hello)
  }

  /** Opens a channel; `first` goes out with it. */
  open(first: Uint8Array, handlers: ChannelHandlers): Channel {
    const id = this.#nextChannel
    this.#nextChannel += 1
    this.#channels.set(id, handlers)
    this.#link?.open(id, first)
    return {
      id,
      send: (message) => {
        this.#link?.send(id, message)
        this.#awaitAnswer()
      },
      datagram: (body) => this.#link?.datagram(id, body) ?? false,
      finish: () => {
        if (this.#channels.delete(id)) this.#link?.finish(id)
      },
    }
  }

  /** Asks for a sign of life: the network changed, or it was silent where an answer was due. */
  check(): void {
    if (this.#welcomed && !this.#ended) this.#ping()
  }

  /** Ends the session from our side. The observer hears of it. `flush` delivers first what was sent. */
  end(failure: Failure, flush = false): void {
    if (this.#ended) return
    this.#ended = true
    clearTimeout(this.#tick)
    clearTimeout(this.#deadline)
    clearTimeout(this.#silence)
    this.#link?.close(failure.message, flush)
    this.#channels.clear()
    this.#observer.onEnd(this, failure)
  }

  onMessage(channel: number, bytes: Uint8Array): void {
    if (this.#ended) return
    this.#heard()
    let message: ServerMessage | null
    try {
      message = decodeServer(bytes)
    } catch (cause) {
      this.end(networkFailure(`unreadable message from the server: ${String(cause)}`))
      return
    }
    if (message === null) return
    const known = message
    guarded(() => {
      if (channel === CONTROL_CHANNEL) this.#onControl(known)
      else this.#channels.get(channel)?.onMessage(known)
    })
  }

  onDatagram(channel: number, body: Uint8Array): void {
    if (this.#ended) return
    this.#heard()
    guarded(() => this.#channels.get(channel)?.onDatagram(body))
  }

  onChannelEnd(channel: number): void {
    if (this.#ended) return
    if (channel === CONTROL_CHANNEL) {
      this.end(networkFailure('the server ended the session'))
      return
    }
    const handlers = this.#channels.get(channel)
    this.#channels.delete(channel)
    guarded(() => handlers?.onEnd())
  }

  onClose(closed: LinkClosed): void {
    // An ERROR comes first and says more; this is for what only a WebSocket proxy or server tells.
    this.end({
      code: errorNameOfCloseCode(closed.code) ?? 'network',
      message: closed.reason || `connection lost (${closed.code})`,
      retryable: !isFinalWebSocketCode(closed.code),
      retryAfterMs: 0,
    })
  }

  #onControl(message: ServerMessage): void {
    switch (message.type) {
      case 'welcome':
        this.#onWelcome(message)
        return
      case 'ping':
        // Answered here and not by a timer: hidden tabs get timers once a minute.
        this.#link?.send(CONTROL_CHANNEL, encodeClient({ type: 'pong', payload: message.payload }))
        return
      case 'pong':
        this.#observer.onRtt(this, Math.max(0, performance.now() - readTime(message.payload)))
        return
      case 'goaway':
        this.#observer.onGoaway(this, message)
        return
      case 'error':
        this.end({
          code: errorName(message.code),
          message: message.text,
          retryable: message.retryable,
          retryAfterMs: message.retryAfterMs,
        })
        return
      default:
        // The rest belongs to documents, or is about credentials, of which we sent none.
        return
    }
  }

  #onWelcome(welcome: Welcome): void {
    if (this.#welcomed) return
    this.#welcomed = true
    this.#limits = new Map(welcome.limits.map(({ key, value }) => [key, value]))
    if (welcome.deadAfterMs > 0) this.#deadAfterMs = welcome.deadAfterMs
    this.#lastTickAt = performance.now()
    this.#scheduleTick(FIRST_TICK_MS)
    this.#ping()
    this.#observer.onWelcome(this, welcome)
  }

  #scheduleTick(ms: number): void {
    this.#tick = setTimeout(() => {
      this.#scheduleTick(TICK_MS)
      this.#onTick()
    }, ms)
  }

  #onTick(): void {
    const now = performance.now()
    const late = now - this.#lastTickAt > 2 * TICK_MS
    this.#lastTickAt = now
    this.#ping()
    if (now - this.#lastHeardAt < this.#deadAfterMs) return
    // A timer that comes late (the machine slept, the tab was frozen) may run before the messages
    // that have waited just as long, so silence proves nothing yet.
    if (late) this.#expect(GRACE_MS, 'no sign of life after a sleep')
    else this.end(networkFailure(`no message for ${Math.round((now - this.#lastHeardAt) / 1000)} s`))
  }

  #heard(): void {
    this.#lastHeardAt = performance.now()
    if (!this.#welcomed) return
    clearTimeout(this.#deadline)
    clearTimeout(this.#silence)
    this.#silence = undefined
    this.#observer.onPulse()
  }

  #expect(ms: number, otherwise: string): void {
    clearTimeout(this.#deadline)
    this.#deadline = setTimeout(() => {
      this.end(networkFailure(otherwise))
    }, ms)
  }

  #ping(): void {
    this.#link?.send(CONTROL_CHANNEL, encodeClient({ type: 'ping', payload: writeTime(performance.now()) }))
    this.#awaitAnswer()
  }

  #awaitAnswer(): void {
    if (this.#ended || this.#silence !== undefined) return
    this.#silence = setTimeout(() => {
      this.#silence = undefined
      this.#observer.onSilence(this)
    }, SILENCE_MS)
  }
}

/** A failure of the network or of a carrier: always worth another try. */
export function networkFailure(message: string): Failure {
  return { code: 'network', message, retryable: true, retryAfterMs: 0 }
}

// The eight opaque bytes of a PING carry the time at which it was sent, so no table of pings is kept.

function writeTime(ms: number): Uint8Array {
  const bytes = new Uint8Array(8)
  new DataView(bytes.buffer).setFloat64(0, ms)
  return bytes
}

function readTime(bytes: Uint8Array): number {
  if (bytes.length !== 8) return performance.now()
  return new DataView(bytes.buffer, bytes.byteOffset, 8).getFloat64(0)
}
