/**
 * Waiting that can be called off. Every timer of the SDK that is awaited is made here, so that an
 * abort leaves none behind.
 */

import { abortReason } from './link/link.js'

/** Resolves after `ms`, or as soon as `signal` aborts; the caller looks at the signal afterwards. */
export function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) {
      resolve()
      return
    }
    const done = (): void => {
      clearTimeout(timer)
      signal.removeEventListener('abort', done)
      resolve()
    }
    const timer = setTimeout(done, ms)
    signal.addEventListener('abort', done)
  })
}

/** The reason with which `within` aborts what took too long. */
export class DeadlineError extends Error {
  constructor(what: string, ms: number) {
    super(`${what}: no answer within ${ms} ms`)
    this.name = 'DeadlineError'
  }
}

/** Runs `work` with a signal that also aborts after `ms`. No timer is left when it settles. */
export async function within<T>(
  ms: number,
  signal: AbortSignal,
  what: string,
  work: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const inner = new AbortController()
  const stop = (): void => {
    inner.abort(signal.reason)
  }
  if (signal.aborted) stop()
  signal.addEventListener('abort', stop)
  const timer = setTimeout(() => {
    inner.abort(new DeadlineError(what, ms))
  }, ms)
  try {
    return await work(inner.signal)
  } finally {
    clearTimeout(timer)
    signal.removeEventListener('abort', stop)
  }
}

/** The promise's own outcome, or a rejection with the signal's reason, whichever comes first. */
export function orAbort<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const stop = (): void => {
      reject(abortReason(signal))
    }
    if (signal.aborted) {
      stop()
      return
    }
    signal.addEventListener('abort', stop)
    promise.then(resolve, reject).finally(() => {
      signal.removeEventListener('abort', stop)
    })
  })
}
