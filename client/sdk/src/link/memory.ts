/**
 * A link without a network, for unit tests: nothing moves until the test says so.
 *
 * Both directions are plain queues. The test takes what the client sent (`takeSent`), and delivers
 * what the server says one message at a time, which makes every interleaving reproducible.
 */

import type { Dialer, Link, LinkHandlers } from './link.js'
import { abortReason } from './link.js'

/** One thing that the client did to its link, in order. */
export type Sent =
  | { readonly kind: 'open' | 'message'; readonly channel: number; readonly message: Uint8Array }
  | { readonly kind: 'datagram'; readonly channel: number; readonly message: Uint8Array }
  | { readonly kind: 'finish'; readonly channel: number }
  | { readonly kind: 'close'; readonly reason: string }

/** The client's end, with the test's controls on it. */
export class MemoryLink implements Link {
  readonly carrier = 'memory' as const
  /** Datagrams up to this many bytes are taken; 0 makes the link refuse them all. */
  datagramBytesMax = 1100
  closed = false
  readonly #handlers: LinkHandlers
  #sent: Sent[] = []

  constructor(handlers: LinkHandlers) {
    this.#handlers = handlers
  }

  open(channel: number, first: Uint8Array): void {
    this.#push({ kind: 'open', channel, message: first })
  }

  send(channel: number, message: Uint8Array): void {
    this.#push({ kind: 'message', channel, message })
  }

  datagram(channel: number, body: Uint8Array): boolean {
    if (body.length > this.datagramBytesMax) return false
    this.#push({ kind: 'datagram', channel, message: body })
    return true
  }

  finish(channel: number): void {
    this.#push({ kind: 'finish', channel })
  }

  close(reason: string): void {
    this.#push({ kind: 'close', reason })
    this.closed = true
  }

  /** Everything that the client sent since the last call. */
  takeSent(): Sent[] {
    const sent = this.#sent
    this.#sent = []
    return sent
  }

  /** Delivers one message of the server. */
  deliver(channel: number, message: Uint8Array): void {
    if (!this.closed) this.#handlers.onMessage(channel, message)
  }

  /** Delivers one datagram of the server. */
  deliverDatagram(channel: number, body: Uint8Array): void {
    if (!this.closed) this.#handlers.onDatagram(channel, body)
  }

  /** The server ends one channel. */
  endChannel(channel: number): void {
    if (!this.closed) this.#handlers.onChannelEnd(channel)
  }

  /** The network or the server ends the link. */
  drop(code = 1006, reason = ''): void {
    if (this.closed) return
    this.closed = true
    this.#handlers.onClose({ code, reason })
  }

  #push(sent: Sent): void {
    if (!this.closed) this.#sent.push(sent)
  }
}

/** Dials that the test answers. */
export class MemoryNetwork {
  /** Every link that was established, oldest first. */
  readonly links: MemoryLink[] = []
  #waiting: (() => void)[] = []
  #refusal: Error | undefined
  /** When true (the default) dials succeed at once; else they wait for `accept`. */
  automatic = true

  /** How many dials wait for the test. */
  get nWaiting(): number {
    return this.#waiting.length
  }

  /** Every dial from now on fails with this error; undefined ends that. */
  refuseAll(error: Error | undefined): void {
    this.#refusal = error
  }

  /** Lets the oldest waiting dial succeed. */
  accept(): void {
    this.#waiting.shift()?.()
  }

  readonly dialer: Dialer = {
    carrier: 'memory',
    dial: (handlers, signal) =>
      new Promise((resolve, reject) => {
        const establish = (): void => {
          if (signal.aborted) {
            reject(abortReason(signal))
            return
          }
          const link = new MemoryLink(handlers)
          this.links.push(link)
          resolve(link)
        }
        if (this.#refusal !== undefined) reject(this.#refusal)
        else if (this.automatic) establish()
        else {
          this.#waiting.push(establish)
          signal.addEventListener('abort', () => {
            reject(abortReason(signal))
          })
        }
      }),
  }
}
