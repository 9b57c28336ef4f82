/**
 * Why something ended or was refused: the table of `src/protocol/close.rs`, which the golden frames
 * compare with this one.
 */

interface ErrorEntry {
  /** The number in messages. */
  readonly number: number
  /** True when the same request can succeed later. A client never loops on anything else. */
  readonly retryable: boolean
  /** The WebSocket close code. */
  readonly closeCode: number
  /** A sentence for a person, for when there is no better one. */
  readonly text: string
}

/** Every error code by its name. */
export const ERRORS = {
  normal: { number: 0, retryable: false, closeCode: 1000, text: 'The connection was closed as asked.' },
  auth_required: { number: 1, retryable: false, closeCode: 4401, text: 'Please sign in: a valid credential is needed.' },
  auth_expired: { number: 2, retryable: true, closeCode: 4501, text: 'The sign-in has expired and has to be renewed.' },
  revoked: { number: 3, retryable: false, closeCode: 4410, text: 'Access has been withdrawn.' },
  permission_denied: { number: 4, retryable: false, closeCode: 4403, text: 'You do not have permission for this.' },
  not_found: { number: 5, retryable: false, closeCode: 4404, text: 'There is no such document.' },
  epoch_mismatch: {
    number: 6,
    retryable: false,
    closeCode: 4409,
    text: 'This document was replaced; the local copy belongs to its earlier history.',
  },
  invalid_message: {
    number: 7,
    retryable: false,
    closeCode: 4400,
    text: 'The server could not read a message of this client.',
  },
  invalid_update: { number: 8, retryable: false, closeCode: 4422, text: 'An edit was not valid and was not accepted.' },
  too_large: { number: 9, retryable: false, closeCode: 4413, text: 'This is larger than the server accepts.' },
  rate_limited: {
    number: 10,
    retryable: true,
    closeCode: 4529,
    text: 'Too many requests; it will be tried again shortly.',
  },
  over_quota: { number: 11, retryable: false, closeCode: 4407, text: 'The quota is used up.' },
  overloaded: {
    number: 12,
    retryable: true,
    closeCode: 4503,
    text: 'The server is busy; it will be tried again shortly.',
  },
  shutting_down: { number: 13, retryable: true, closeCode: 1012, text: 'The server is restarting.' },
  unsupported_version: {
    number: 14,
    retryable: false,
    closeCode: 4426,
    text: 'This client and this server have no protocol version in common.',
  },
  internal: {
    number: 15,
    retryable: true,
    closeCode: 1011,
    text: 'The server met an error; it will be tried again shortly.',
  },
} as const satisfies Record<string, ErrorEntry>

/** The name of an error code. */
export type ErrorName = keyof typeof ERRORS

const names = Object.keys(ERRORS) as ErrorName[]
const namesByNumber = new Map<number, ErrorName>(names.map((name) => [ERRORS[name].number, name]))
const namesByCloseCode = new Map<number, ErrorName>(names.map((name) => [ERRORS[name].closeCode, name]))

/** The name of a code in a message. One of a newer server reads as `internal`; the message says whether to retry. */
export function errorName(code: number): ErrorName {
  return namesByNumber.get(code) ?? 'internal'
}

/** The name of a WebSocket close code; undefined when it is not of the table. */
export function errorNameOfCloseCode(closeCode: number): ErrorName | undefined {
  return namesByCloseCode.get(closeCode)
}

/** True for close codes after which a client must not come back by itself. */
export function isFinalWebSocketCode(closeCode: number): boolean {
  return closeCode >= 4400 && closeCode <= 4499
}
