/**
 * WebSocket, for networks that block QUIC: all channels on one socket, large messages in fragments
 * so that none holds up the others for long.
 */

import { decodeMultiplexed, encodeMultiplexed, Reassembler } from '../protocol/index.js'
import type { Dialer, Link, LinkHandlers } from './link.js'
import { abortReason } from './link.js'

/** The part of the WebSocket constructor that is used; Node before version 22 has none of its own. */
export type WebSocketConstructor = new (url: string) => WebSocket

/** The close code of an orderly end. */
const NORMAL = 1000

/** A dialer for one address. */
export function websocketDialer(url: string, constructor: WebSocketConstructor): Dialer {
  return {
    carrier: 'websocket',
    dial: (handlers, signal) =>
      new Promise<Link>((resolve, reject) => {
        if (signal.aborted) {
          reject(abortReason(signal))
          return
        }
        const socket = new constructor(url)
        socket.binaryType = 'arraybuffer'
        const settle = (): void => {
          signal.removeEventListener('abort', onAbort)
          socket.onopen = null
          socket.onclose = null
          socket.onerror = null
        }
        const onAbort = (): void => {
          settle()
          // Some implementations report the abort of a connect as an error.
          socket.onerror = (): void => undefined
          socket.close()
          reject(abortReason(signal))
        }
        signal.addEventListener('abort', onAbort)
        socket.onopen = (): void => {
          settle()
          resolve(new WebSocketLink(socket, handlers))
        }
        const fail = (): void => {
          settle()
          socket.onerror = (): void => undefined
          reject(new Error('websocket: the connection could not be opened'))
        }
        socket.onerror = fail
        socket.onclose = fail
      }),
  }
}

class WebSocketLink implements Link {
  readonly carrier = 'websocket' as const
  readonly #socket: WebSocket
  readonly #handlers: LinkHandlers
  readonly #reassembler = new Reassembler()
  #closed = false

  constructor(socket: WebSocket, handlers: LinkHandlers) {
    this.#socket = socket
    this.#handlers = handlers
    socket.onmessage = (event: MessageEvent<unknown>): void => {
      if (event.data instanceof ArrayBuffer) this.#receive(new Uint8Array(event.data))
    }
    socket.onclose = (event): void => {
      this.#lose(event.code, event.reason)
    }
    socket.onerror = (): void => {
      // A close event always follows and says more.
    }
  }

  open(channel: number, first: Uint8Array): void {
    this.send(channel, first)
  }

  send(channel: number, message: Uint8Array): void {
    if (this.#closed || this.#socket.readyState !== this.#socket.OPEN) return
    for (const part of encodeMultiplexed(channel, message)) this.#socket.send(part)
  }

  datagram(): boolean {
    return false
  }

  finish(): void {
    // The channel ends with CLOSE; there is nothing else to end.
  }

  close(reason: string): void {
    this.#closed = true
    this.#socket.onmessage = null
    this.#socket.onclose = null
    this.#socket.close(NORMAL, reason.slice(0, 100))
  }

  #receive(bytes: Uint8Array): void {
    if (this.#closed) return
    try {
      const { channel, message } = decodeMultiplexed(bytes)
      const whole = this.#reassembler.push(channel, message)
      if (whole !== null) this.#handlers.onMessage(channel, whole)
    } catch (cause) {
      this.close('unreadable message')
      this.#handlers.onClose({ code: 0, reason: `unreadable message from the server: ${String(cause)}` })
    }
  }

  #lose(code: number, reason: string): void {
    if (this.#closed) return
    this.#closed = true
    this.#handlers.onClose({ code, reason })
  }
}
