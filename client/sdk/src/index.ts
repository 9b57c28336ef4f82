/** `@syncline/client`: a Yjs provider for a Syncline server. */

export type { Access, Rejection } from './document.js'
export type { SaveState } from './ledger.js'
export type { Carrier } from './link/link.js'
export type { SavedEvent, Status, SynclineProviderEvents, SynclineProviderOptions } from './provider.js'
export { SynclineProvider } from './provider.js'
export type { Failure, FailureCode, Goaway } from './session.js'
