/**
 * Which carrier wins: the preferred one gets a head start, then the next runs beside it.
 */

import type { Dialer, Link, LinkHandlers } from './link/link.js'
import { abortReason } from './link/link.js'

/** The winner, and what the others did before it won. */
export interface RaceResult<Handlers extends LinkHandlers> {
  readonly link: Link
  /** The handlers that the winner reports to. */
  readonly handlers: Handlers
  /** Carriers that were started earlier than the winner and were not up when it won. */
  readonly beaten: readonly Dialer['carrier'][]
}

/** Every carrier failed. */
export class NoCarrierError extends Error {
  constructor(readonly causes: readonly Error[]) {
    super(causes.map((cause) => cause.message).join('; ') || 'no carrier to dial with')
    this.name = 'NoCarrierError'
  }
}

/**
 * Dials in order of preference. The next carrier starts when the one before it has failed, or when
 * `headStartMs` has passed; the first link that is up wins and every other dial is aborted.
 * `handlersOf` makes handlers for each dial, so that a loser can never speak to the winner's owner.
 */
export function race<Handlers extends LinkHandlers>(
  dialers: readonly Dialer[],
  headStartMs: number,
  signal: AbortSignal,
  handlersOf: () => Handlers,
): Promise<RaceResult<Handlers>> {
  return new Promise((resolve, reject) => {
    const runners = new AbortController()
    const failures = new Map<Dialer, Error>()
    let nStarted = 0
    let timer: ReturnType<typeof setTimeout> | undefined

    const finish = (): void => {
      clearTimeout(timer)
      signal.removeEventListener('abort', onAbort)
      runners.abort(new Error('another carrier was faster'))
    }
    const onAbort = (): void => {
      finish()
      reject(abortReason(signal))
    }
    const startNext = (): void => {
      clearTimeout(timer)
      const dialer = dialers[nStarted]
      if (dialer === undefined) {
        if (failures.size === dialers.length) {
          finish()
          reject(new NoCarrierError([...failures.values()]))
        }
        return
      }
      nStarted += 1
      if (nStarted < dialers.length) timer = setTimeout(startNext, headStartMs)
      const handlers = handlersOf()
      dialer.dial(handlers, runners.signal).then(
        (link) => {
          if (runners.signal.aborted) {
            link.close('another carrier was faster')
            return
          }
          const beaten = dialers.slice(0, dialers.indexOf(dialer)).map((other) => other.carrier)
          finish()
          resolve({ link, handlers, beaten })
        },
        (cause: unknown) => {
          if (runners.signal.aborted) return
          failures.set(dialer, cause instanceof Error ? cause : new Error(String(cause)))
          if (failures.size === nStarted) startNext()
        },
      )
    }

    if (signal.aborted) {
      reject(abortReason(signal))
      return
    }
    signal.addEventListener('abort', onAbort)
    startNext()
  })
}
