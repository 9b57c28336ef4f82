/**
 * The messages of the native protocol, both directions: the client needs one, its tests the other.
 * `src/protocol/PROTOCOL.md` of the server is the specification; the golden frames bind both codecs.
 */

import { Position } from './position.js'
import { ProtocolError, Reader, Writer } from './wire.js'

/** The version of the protocol that this codec speaks. */
export const PROTOCOL_VERSION = 1

/** Yjs update format 1, in `encodings` of OPEN. */
export const ENCODING_YJS_V1 = 1

/** Keys of the limits of WELCOME. */
export const LIMIT = { updateBytes: 1, initialSyncBytes: 2, presenceBytes: 3, documents: 4, fragmentBytes: 5 } as const

/** Type numbers. An odd one may be skipped by whoever does not know it. */
export const TYPE = {
  hello: 0,
  welcome: 2,
  ping: 4,
  pong: 6,
  auth: 8,
  authOk: 10,
  authExpiring: 13,
  goaway: 15,
  error: 16,
  open: 32,
  opened: 34,
  clientUpdate: 36,
  serverUpdate: 38,
  sync: 40,
  seen: 42,
  durable: 44,
  syncRequest: 46,
  rejected: 48,
  presence: 51,
  message: 53,
  access: 54,
  replaced: 56,
  close: 58,
  closed: 60,
  fragment: 62,
} as const

const knownTypes = new Set<number>(Object.values(TYPE))

const SESSION_BYTES = 16
const EPOCH_BYTES = 16
const PING_BYTES = 8

/** What a session may do with a document. */
export type Access = 'read' | 'write'

/** What a client proves its identity with. */
export type Credential =
  | { readonly kind: 'none' }
  | { readonly kind: 'ticket'; readonly value: string }
  | { readonly kind: 'token'; readonly value: string }

/** The client's first message. */
export interface Hello {
  readonly type: 'hello'
  /** Versions that the client speaks, best first. */
  readonly versions: readonly number[]
  readonly features: readonly string[]
  readonly auth: Credential
  readonly clientName: string
  readonly clientVersion: string
  /** The session that this one replaces: its presence is handed over. */
  readonly previousSessionId: Uint8Array | undefined
}

/** The session is on. */
export interface Welcome {
  readonly type: 'welcome'
  readonly version: number
  readonly features: readonly string[]
  readonly sessionId: Uint8Array
  readonly nodeId: string
  readonly userId: string
  readonly userName: string
  /** Keys are those of `LIMIT`; others are ignored. */
  readonly limits: readonly { readonly key: number; readonly value: number }[]
  readonly heartbeatMs: number
  /** Without any message for this long, the peer is dead. */
  readonly deadAfterMs: number
  /** 0: the credential does not expire. */
  readonly authLifetimeMs: number
}

/** The first message of a document channel. */
export interface Open {
  readonly type: 'open'
  readonly document: string
  /** The epoch of the local copy, if there is one. */
  readonly epoch: Uint8Array | undefined
  readonly clientId: number
  readonly stateVector: Uint8Array
  /** An encoded `Position`, if there is one to resume from. */
  readonly position: Uint8Array | undefined
  readonly access: Access
  readonly encodings: readonly number[]
}

/** The document is open. */
export interface Opened {
  readonly type: 'opened'
  readonly epoch: Uint8Array
  /** Where `update` brings this copy. */
  readonly position: Position
  readonly access: Access
  /** What is not in it, the client sends. */
  readonly stateVector: Uint8Array
  /** Empty when nothing is missing. */
  readonly update: Uint8Array
  /** An awareness update of who is here; empty when nobody is. */
  readonly awareness: Uint8Array
}

/** The end of a session or of a channel, and whether to try again. */
interface Refusal {
  /** A number of `ERRORS`; see `errorName`. */
  readonly code: number
  readonly text: string
  readonly retryable: boolean
  readonly retryAfterMs: number
}

interface Ping {
  readonly type: 'ping' | 'pong'
  /** Eight bytes of the sender's own; a pong brings those of its ping. */
  readonly payload: Uint8Array
}

interface Presence {
  readonly type: 'presence'
  /** An awareness update. */
  readonly update: Uint8Array
}

interface Broadcast {
  readonly type: 'message'
  readonly body: Uint8Array
}

/** What a client sends. */
export type ClientMessage =
  | Hello
  | Ping
  | { readonly type: 'auth'; readonly auth: Credential }
  | Open
  | { readonly type: 'update' | 'sync'; readonly sequence: number; readonly update: Uint8Array }
  | Presence
  | Broadcast
  | { readonly type: 'close' }

/** What a server sends. */
export type ServerMessage =
  | Welcome
  | Ping
  | { readonly type: 'authOk'; readonly lifetimeMs: number }
  | { readonly type: 'authExpiring'; readonly leftMs: number }
  | {
      readonly type: 'goaway'
      readonly reason: string
      readonly reconnectMinMs: number
      readonly reconnectMaxMs: number
    }
  | ({ readonly type: 'error' } & Refusal)
  | Opened
  | { readonly type: 'update'; readonly position: Position; readonly update: Uint8Array }
  | { readonly type: 'seen' | 'durable'; readonly sequence: number }
  | { readonly type: 'syncRequest'; readonly stateVector: Uint8Array }
  | {
      readonly type: 'rejected'
      readonly sequence: number
      readonly code: number
      readonly text: string
      readonly terminal: boolean
    }
  | Presence
  | Broadcast
  | { readonly type: 'access'; readonly access: Access }
  | { readonly type: 'replaced'; readonly epoch: Uint8Array }
  | ({ readonly type: 'closed' } & Refusal)

/** A client's message as bytes, type included. */
export function encodeClient(message: ClientMessage): Uint8Array<ArrayBuffer> {
  const writer = new Writer()
  switch (message.type) {
    case 'hello':
      writer.uint(TYPE.hello).list(message.versions, (version) => writer.uint(version))
      writer.list(message.features, (feature) => writer.str(feature))
      writeCredential(writer, message.auth)
      writer.str(message.clientName).str(message.clientVersion)
      writer.optional(message.previousSessionId, (id) => writer.fixed(id, SESSION_BYTES))
      break
    case 'ping':
    case 'pong':
      writer.uint(TYPE[message.type]).fixed(message.payload, PING_BYTES)
      break
    case 'auth':
      writeCredential(writer.uint(TYPE.auth), message.auth)
      break
    case 'open':
      writer.uint(TYPE.open).str(message.document)
      writer.optional(message.epoch, (epoch) => writer.fixed(epoch, EPOCH_BYTES))
      writer.uint(message.clientId).buf(message.stateVector)
      writer.optional(message.position, (position) => writer.buf(position))
      writer.flag(message.access === 'write').list(message.encodings, (encoding) => writer.uint(encoding))
      break
    case 'update':
      writer.uint(TYPE.clientUpdate).uint(message.sequence).buf(message.update)
      break
    case 'sync':
      writer.uint(TYPE.sync).uint(message.sequence).buf(message.update)
      break
    case 'presence':
      writer.uint(TYPE.presence).buf(message.update)
      break
    case 'message':
      writer.uint(TYPE.message).buf(message.body)
      break
    case 'close':
      writer.uint(TYPE.close)
      break
  }
  return writer.finish()
}

/** A server's message as bytes, type included. */
export function encodeServer(message: ServerMessage): Uint8Array<ArrayBuffer> {
  const writer = new Writer()
  switch (message.type) {
    case 'welcome':
      writer.uint(TYPE.welcome).uint(message.version)
      writer.list(message.features, (feature) => writer.str(feature))
      writer.fixed(message.sessionId, SESSION_BYTES)
      writer.str(message.nodeId).str(message.userId).str(message.userName)
      writer.list(message.limits, ({ key, value }) => writer.uint(key).uint(value))
      writer.uint(message.heartbeatMs).uint(message.deadAfterMs).uint(message.authLifetimeMs)
      break
    case 'ping':
    case 'pong':
      writer.uint(TYPE[message.type]).fixed(message.payload, PING_BYTES)
      break
    case 'authOk':
      writer.uint(TYPE.authOk).uint(message.lifetimeMs)
      break
    case 'authExpiring':
      writer.uint(TYPE.authExpiring).uint(message.leftMs)
      break
    case 'goaway':
      writer.uint(TYPE.goaway).str(message.reason).uint(message.reconnectMinMs).uint(message.reconnectMaxMs)
      break
    case 'error':
    case 'closed':
      writer.uint(TYPE[message.type]).uint(message.code).str(message.text)
      writer.flag(message.retryable).uint(message.retryAfterMs)
      break
    case 'opened':
      writer.uint(TYPE.opened).fixed(message.epoch, EPOCH_BYTES).buf(message.position.encode())
      writer.flag(message.access === 'write').buf(message.stateVector).buf(message.update).buf(message.awareness)
      break
    case 'update':
      writer.uint(TYPE.serverUpdate).buf(message.position.encode()).buf(message.update)
      break
    case 'seen':
    case 'durable':
      writer.uint(TYPE[message.type]).uint(message.sequence)
      break
    case 'syncRequest':
      writer.uint(TYPE.syncRequest).buf(message.stateVector)
      break
    case 'rejected':
      writer.uint(TYPE.rejected).uint(message.sequence).uint(message.code).str(message.text).flag(message.terminal)
      break
    case 'presence':
      writer.uint(TYPE.presence).buf(message.update)
      break
    case 'message':
      writer.uint(TYPE.message).buf(message.body)
      break
    case 'access':
      writer.uint(TYPE.access).flag(message.access === 'write')
      break
    case 'replaced':
      writer.uint(TYPE.replaced).fixed(message.epoch, EPOCH_BYTES)
      break
  }
  return writer.finish()
}

/** Reads a client's message; null for a type to skip. Throws `ProtocolError`. */
export function decodeClient(bytes: Uint8Array): ClientMessage | null {
  const reader = new Reader(bytes)
  const message = readClient(reader)
  if (message !== null) reader.end()
  return message
}

/** Reads a server's message; null for a type to skip. Throws `ProtocolError`. Byte fields are views of `bytes`. */
export function decodeServer(bytes: Uint8Array): ServerMessage | null {
  const reader = new Reader(bytes)
  const message = readServer(reader)
  if (message !== null) reader.end()
  return message
}

function readClient(reader: Reader): ClientMessage | null {
  const type = reader.uint()
  switch (type) {
    case TYPE.hello:
      return {
        type: 'hello',
        versions: reader.list(() => reader.uint()),
        features: reader.list(() => reader.str()),
        auth: readCredential(reader),
        clientName: reader.str(),
        clientVersion: reader.str(),
        previousSessionId: reader.optional(() => reader.bytes(SESSION_BYTES)),
      }
    case TYPE.ping:
      return { type: 'ping', payload: reader.bytes(PING_BYTES) }
    case TYPE.pong:
      return { type: 'pong', payload: reader.bytes(PING_BYTES) }
    case TYPE.auth: {
      const auth = readCredential(reader)
      if (auth.kind === 'none') throw new ProtocolError('bad_value')
      return { type: 'auth', auth }
    }
    case TYPE.open:
      return {
        type: 'open',
        document: reader.str(),
        epoch: reader.optional(() => reader.bytes(EPOCH_BYTES)),
        clientId: reader.uint(),
        stateVector: reader.buf(),
        position: reader.optional(() => {
          const position = reader.buf()
          Position.decode(position)
          return position
        }),
        access: readAccess(reader),
        encodings: reader.list(() => reader.uint()),
      }
    case TYPE.clientUpdate:
      return { type: 'update', sequence: readSequence(reader), update: reader.buf() }
    case TYPE.sync:
      return { type: 'sync', sequence: readSequence(reader), update: reader.buf() }
    case TYPE.presence:
      return { type: 'presence', update: reader.buf() }
    case TYPE.message:
      return { type: 'message', body: reader.buf() }
    case TYPE.close:
      return { type: 'close' }
    default:
      return skip(type)
  }
}

function readServer(reader: Reader): ServerMessage | null {
  const type = reader.uint()
  switch (type) {
    case TYPE.welcome:
      return {
        type: 'welcome',
        version: reader.uint(),
        features: reader.list(() => reader.str()),
        sessionId: reader.bytes(SESSION_BYTES),
        nodeId: reader.str(),
        userId: reader.str(),
        userName: reader.str(),
        limits: reader.list(() => ({ key: reader.uint(), value: reader.uint() })),
        heartbeatMs: reader.uint(),
        deadAfterMs: reader.uint(),
        authLifetimeMs: reader.uint(),
      }
    case TYPE.ping:
      return { type: 'ping', payload: reader.bytes(PING_BYTES) }
    case TYPE.pong:
      return { type: 'pong', payload: reader.bytes(PING_BYTES) }
    case TYPE.authOk:
      return { type: 'authOk', lifetimeMs: reader.uint() }
    case TYPE.authExpiring:
      return { type: 'authExpiring', leftMs: reader.uint() }
    case TYPE.goaway:
      return {
        type: 'goaway',
        reason: reader.str(),
        reconnectMinMs: reader.uint(),
        reconnectMaxMs: reader.uint(),
      }
    case TYPE.error:
      return { type: 'error', ...readRefusal(reader) }
    case TYPE.opened:
      return {
        type: 'opened',
        epoch: reader.bytes(EPOCH_BYTES),
        position: Position.decode(reader.buf()),
        access: readAccess(reader),
        stateVector: reader.buf(),
        update: reader.buf(),
        awareness: reader.buf(),
      }
    case TYPE.serverUpdate:
      return { type: 'update', position: Position.decode(reader.buf()), update: reader.buf() }
    case TYPE.seen:
      return { type: 'seen', sequence: reader.uint() }
    case TYPE.durable:
      return { type: 'durable', sequence: reader.uint() }
    case TYPE.syncRequest:
      return { type: 'syncRequest', stateVector: reader.buf() }
    case TYPE.rejected:
      return {
        type: 'rejected',
        sequence: readSequence(reader),
        code: reader.uint(),
        text: reader.str(),
        terminal: reader.flag(),
      }
    case TYPE.presence:
      return { type: 'presence', update: reader.buf() }
    case TYPE.message:
      return { type: 'message', body: reader.buf() }
    case TYPE.access:
      return { type: 'access', access: readAccess(reader) }
    case TYPE.replaced:
      return { type: 'replaced', epoch: reader.bytes(EPOCH_BYTES) }
    case TYPE.closed:
      return { type: 'closed', ...readRefusal(reader) }
    default:
      return skip(type)
  }
}

/** What to do with a type that has no place here: skip it (null) or refuse it. */
function skip(type: number): null {
  if (knownTypes.has(type)) throw new ProtocolError('misplaced')
  if (type % 2 === 0) throw new ProtocolError('unknown_type')
  return null
}

function readRefusal(reader: Reader): Refusal {
  return { code: reader.uint(), text: reader.str(), retryable: reader.flag(), retryAfterMs: reader.uint() }
}

function readAccess(reader: Reader): Access {
  return reader.flag() ? 'write' : 'read'
}

function readSequence(reader: Reader): number {
  const sequence = reader.uint()
  if (sequence === 0) throw new ProtocolError('bad_value')
  return sequence
}

function readCredential(reader: Reader): Credential {
  const kind = reader.uint()
  switch (kind) {
    case 0:
      return { kind: 'none' }
    case 1:
      return { kind: 'ticket', value: reader.str() }
    case 2:
      return { kind: 'token', value: reader.str() }
    default:
      throw new ProtocolError('bad_value')
  }
}

function writeCredential(writer: Writer, credential: Credential): void {
  switch (credential.kind) {
    case 'none':
      writer.uint(0)
      break
    case 'ticket':
      writer.uint(1).str(credential.value)
      break
    case 'token':
      writer.uint(2).str(credential.value)
      break
  }
}
