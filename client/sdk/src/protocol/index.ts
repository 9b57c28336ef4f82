/** The native protocol's codec. */

export { ERRORS, errorName, errorNameOfCloseCode, isFinalWebSocketCode } from './errors.js'
export type { ErrorName } from './errors.js'
export {
  capsToClient,
  capsToServer,
  decodeDatagram,
  decodeMultiplexed,
  encodeDatagram,
  encodeFrame,
  encodeMultiplexed,
  encodePreamble,
  FRAGMENT_BYTES_MAX,
  FrameDecoder,
  Reassembler,
} from './frame.js'
export type { Caps } from './frame.js'
export {
  decodeClient,
  decodeServer,
  encodeClient,
  encodeServer,
  ENCODING_YJS_V1,
  LIMIT,
  PROTOCOL_VERSION,
  TYPE,
} from './message.js'
export type { Access, ClientMessage, Credential, Hello, Open, Opened, ServerMessage, Welcome } from './message.js'
export { Position } from './position.js'
export { LIST_LEN_MAX, ProtocolError } from './wire.js'
export type { ProtocolReason } from './wire.js'
