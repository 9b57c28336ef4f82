/**
 * WebTransport: one QUIC connection, one bidirectional stream for each channel, datagrams beside.
 *
 * The first stream is the control channel. Every stream starts with its channel number and the
 * first message in one write, at the moment at which it is created: a stream that stays silent
 * would hold up the server's acceptance of the ones behind it.
 */

import { decodeDatagram, encodeDatagram, encodeFrame, encodePreamble, FrameDecoder } from '../protocol/index.js'
import type { Dialer, Link, LinkHandlers } from './link.js'
import { abortReason, CONTROL_CHANNEL } from './link.js'
import { DATAGRAM_BYTES_MAX } from '../presence.js'

/** True where the browser has WebTransport. */
export function hasWebTransport(): boolean {
  return typeof globalThis.WebTransport === 'function'
}

/** A dialer for one address; the hashes pin a development certificate and may be empty. */
export function webtransportDialer(url: string, certificateHashes: readonly Uint8Array<ArrayBuffer>[]): Dialer {
  return {
    carrier: 'webtransport',
    dial: async (handlers, signal) => {
      const options: WebTransportOptions = { congestionControl: 'low-latency' }
      if (certificateHashes.length > 0) {
        options.serverCertificateHashes = certificateHashes.map((value) => ({ algorithm: 'sha-256', value }))
      }
      const transport = new WebTransport(url, options)
      // Both promises reject when a connect fails; the one that is not awaited must not go unhandled.
      transport.closed.catch(ignore)
      const stop = (): void => {
        closeQuietly(transport, '')
      }
      signal.addEventListener('abort', stop)
      try {
        await transport.ready
      } catch (cause) {
        throw new Error(`webtransport: ${cause instanceof Error ? cause.message : String(cause)}`, { cause })
      } finally {
        signal.removeEventListener('abort', stop)
      }
      if (signal.aborted) {
        stop()
        throw abortReason(signal)
      }
      return new WebTransportLink(transport, handlers)
    },
  }
}

interface Stream {
  writer: WritableStreamDefaultWriter<Uint8Array> | undefined
  /** What was sent before the browser had made the stream. */
  waiting: Uint8Array[]
  finished: boolean
}

class WebTransportLink implements Link {
  readonly carrier = 'webtransport' as const
  readonly #transport: WebTransport
  readonly #handlers: LinkHandlers
  readonly #streams = new Map<number, Stream>()
  /** Document streams whose server side has not ended. */
  readonly #ending = new Set<Promise<void>>()
  readonly #datagrams: WritableStreamDefaultWriter<Uint8Array> | undefined
  #closed = false

  constructor(transport: WebTransport, handlers: LinkHandlers) {
    this.#transport = transport
    this.#handlers = handlers
    this.#datagrams = datagramWriter(transport)
    const lost = (cause: unknown): void => {
      this.#lose(cause instanceof Error ? cause.message : '')
    }
    transport.closed.then(lost, lost)
    void this.#readDatagrams()
  }

  open(channel: number, first: Uint8Array): void {
    const stream: Stream = { writer: undefined, waiting: [], finished: false }
    this.#streams.set(channel, stream)
    // Settles when the server has ended its side, which it does once it has read ours.
    const ended = this.#transport.createBidirectionalStream().then(
      ({ readable, writable }) => {
        const writer = writable.getWriter() as WritableStreamDefaultWriter<Uint8Array>
        stream.writer = writer
        writer.write(concat([encodePreamble(channel), encodeFrame(first), ...stream.waiting])).catch(ignore)
        stream.waiting = []
        if (stream.finished) writer.close().catch(ignore)
        return this.#read(channel, readable as ReadableStream<Uint8Array>)
      },
      () => {
        this.#end(channel)
      },
    )
    if (channel === CONTROL_CHANNEL) return
    this.#ending.add(ended)
    void ended.then(() => this.#ending.delete(ended))
  }

  send(channel: number, message: Uint8Array): void {
    const stream = this.#streams.get(channel)
    if (stream === undefined || stream.finished || this.#closed) return
    const frame = encodeFrame(message)
    if (stream.writer === undefined) stream.waiting.push(frame)
    // A write fails only with its stream, and then the reading side says so too.
    else stream.writer.write(frame).catch(ignore)
  }

  datagram(channel: number, body: Uint8Array): boolean {
    const datagram = encodeDatagram(channel, body)
    const bytesMax = Math.min(DATAGRAM_BYTES_MAX, this.#transport.datagrams.maxDatagramSize || DATAGRAM_BYTES_MAX)
    if (this.#datagrams === undefined || datagram.length > bytesMax) return false
    this.#datagrams.write(datagram).catch(ignore)
    return true
  }

  finish(channel: number): void {
    const stream = this.#streams.get(channel)
    if (stream === undefined || stream.finished) return
    stream.finished = true
    stream.writer?.close().catch(ignore)
  }

  close(reason: string, flush = false): void {
    this.#closed = true
    if (!flush) {
      closeQuietly(this.#transport, reason)
      return
    }
    // A QUIC close overtakes what is still queued, on either side. So every document's stream is
    // finished, and the server's end of it awaited. On a dead network that never comes, and the idle
    // timeout ends the connection; no timer is needed.
    for (const channel of this.#streams.keys()) if (channel !== CONTROL_CHANNEL) this.finish(channel)
    void Promise.allSettled([...this.#ending]).then(() => {
      closeQuietly(this.#transport, reason)
    })
  }

  async #read(channel: number, readable: ReadableStream<Uint8Array>): Promise<void> {
    const decoder = new FrameDecoder()
    const reader = readable.getReader()
    try {
      for (;;) {
        const { done, value } = await reader.read()
        if (done) break
        if (this.#closed) continue
        for (const message of decoder.push(value)) {
          // The session may end itself in the middle of what came in one piece; it knows.
          this.#handlers.onMessage(channel, message)
        }
      }
    } catch {
      // Reset by the server, or the session is gone. Codes carry no meaning here.
    }
    this.#end(channel)
  }

  async #readDatagrams(): Promise<void> {
    const reader = (this.#transport.datagrams.readable as ReadableStream<Uint8Array>).getReader()
    try {
      for (;;) {
        const { done, value } = await reader.read()
        if (done || this.#closed) return
        const datagram = decodeDatagram(value)
        if (datagram !== null) this.#handlers.onDatagram(datagram.channel, datagram.body)
      }
    } catch {
      // The session is gone; `closed` says so.
    }
  }

  #end(channel: number): void {
    this.finish(channel)
    if (!this.#streams.delete(channel) || this.#closed) return
    this.#handlers.onChannelEnd(channel)
  }

  #lose(reason: string): void {
    if (this.#closed) return
    this.#closed = true
    this.#handlers.onClose({ code: 0, reason })
  }
}

function datagramWriter(transport: WebTransport): WritableStreamDefaultWriter<Uint8Array> | undefined {
  // The newer form of the interface makes writers on demand; the older has one stream.
  const datagrams = transport.datagrams as {
    writable?: WritableStream<Uint8Array>
    createWritable?: () => WritableStream<Uint8Array>
  }
  return (datagrams.writable ?? datagrams.createWritable?.())?.getWriter()
}

function closeQuietly(transport: WebTransport, reason: string): void {
  try {
    transport.close({ closeCode: 0, reason: reason.slice(0, 200) })
  } catch {
    // Already closed, or not yet connected and closing by itself.
  }
}

function concat(parts: readonly Uint8Array[]): Uint8Array {
  const all = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0))
  let at = 0
  for (const part of parts) {
    all.set(part, at)
    at += part.length
  }
  return all
}

function ignore(): void {
  // Rejections that another path reports.
}
