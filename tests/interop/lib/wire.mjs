// The y-websocket dialect, one message per frame, by hand: the tests need to say what no provider would.

import * as encoding from 'lib0/encoding'
import * as decoding from 'lib0/decoding'

export const SYNC = 0
export const AWARENESS = 1
export const AUTH = 2
export const QUERY_AWARENESS = 3
export const STEP1 = 0
export const STEP2 = 1
export const UPDATE = 2

/** `[0, kind, bytes]`. */
export function sync (kind, bytes) {
  const encoder = encoding.createEncoder()
  encoding.writeVarUint(encoder, SYNC)
  encoding.writeVarUint(encoder, kind)
  encoding.writeVarUint8Array(encoder, bytes)
  return encoding.toUint8Array(encoder)
}

/** `[1, bytes]`. */
export function awareness (bytes) {
  const encoder = encoding.createEncoder()
  encoding.writeVarUint(encoder, AWARENESS)
  encoding.writeVarUint8Array(encoder, bytes)
  return encoding.toUint8Array(encoder)
}

export const queryAwareness = () => Uint8Array.of(QUERY_AWARENESS)

/** Reads the one message of a frame; an error when anything follows it. */
export function read (frame) {
  const decoder = decoding.createDecoder(frame)
  const type = decoding.readVarUint(decoder)
  const message = { type }
  if (type === SYNC) {
    message.kind = decoding.readVarUint(decoder)
    message.bytes = decoding.readVarUint8Array(decoder)
  } else if (type === AWARENESS) {
    message.bytes = decoding.readVarUint8Array(decoder)
  } else if (type === AUTH) {
    message.kind = decoding.readVarUint(decoder)
    message.reason = decoding.readVarString(decoder)
  } else if (type !== QUERY_AWARENESS) {
    throw new Error(`a message of unknown type ${type}`)
  }
  if (decoding.hasContent(decoder)) throw new Error('more than one message in a frame')
  return message
}
