/**
 * What the SDK needs of a carrier, so that the rest of it never knows which one is in use.
 *
 * A link carries whole messages on numbered channels. Channel 0 is the control channel; every
 * other channel is one document. How messages are framed on the wire is the carrier's own affair.
 */

/** The carriers that a link can run over. `memory` exists for unit tests. */
export type Carrier = 'webtransport' | 'websocket' | 'memory'

/** The channel that carries HELLO, heartbeat and everything that is about the session as a whole. */
export const CONTROL_CHANNEL = 0

/** Why a link ended. */
export interface LinkClosed {
  /** The WebSocket close code; 0 where the carrier has none that means anything (WebTransport). */
  readonly code: number
  /** Text for a person; may be empty. */
  readonly reason: string
}

/** What a link reports to its one owner. Nothing is reported after `onClose`, which comes once. */
export interface LinkHandlers {
  /** One whole message arrived on a channel. */
  onMessage(channel: number, message: Uint8Array): void
  /** One presence datagram arrived. It may be late, repeated or never come. */
  onDatagram(channel: number, body: Uint8Array): void
  /** The server ended one channel; the session goes on. */
  onChannelEnd(channel: number): void
  /** The link is gone, by whichever side. Not called when we closed it ourselves. */
  onClose(closed: LinkClosed): void
}

/** One live connection to a server. Sending on a link that is gone does nothing. */
export interface Link {
  readonly carrier: Carrier
  /** Opens a channel and sends its first message with it, which saves a round trip. */
  open(channel: number, first: Uint8Array): void
  /** Sends one message on an open channel, in order. */
  send(channel: number, message: Uint8Array): void
  /** Sends one datagram; false when the carrier has none or this one is too large. */
  datagram(channel: number, body: Uint8Array): boolean
  /** Ends our side of a channel after what was sent on it. */
  finish(channel: number): void
  /**
   * Ends the link; `onClose` does not follow. `flush` delivers first what was sent, as far as the
   * network still does: for an orderly end, where the last edit may be a moment old.
   */
  close(reason: string, flush?: boolean): void
}

/**
 * Opens a link. Rejects when the carrier cannot be had, and when `signal` aborts; a link that
 * comes up after the abort is closed by the dialer itself.
 */
export type Dial = (handlers: LinkHandlers, signal: AbortSignal) => Promise<Link>

/** One way to reach the server. */
export interface Dialer {
  readonly carrier: Carrier
  readonly dial: Dial
}

/** The error with which a dialer that was told to stop rejects. */
export function abortReason(signal: AbortSignal): Error {
  const reason: unknown = signal.reason
  return reason instanceof Error ? reason : new Error('dial aborted')
}
