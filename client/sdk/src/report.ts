/**
 * Faults of the application's own handlers. They must not be taken for faults of the connection,
 * nor stop the SDK half-way, nor vanish.
 */

const runtime: { reportError?: (cause: unknown) => void } = globalThis

/** Hands a fault to the page, as if nobody had caught it. */
export function report(cause: unknown): void {
  if (runtime.reportError !== undefined) runtime.reportError(cause)
  else {
    queueMicrotask(() => {
      throw cause
    })
  }
}

/** Runs what may call into the application, and goes on whatever happens there. */
export function guarded(work: () => void): void {
  try {
    work()
  } catch (cause) {
    report(cause)
  }
}
