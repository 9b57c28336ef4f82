// Waiting for conditions, never for time: every wait has a deadline and says what it waited for.

/** A promise that resolves in the next turn of the event loop, after pending I/O was looked at. */
export const turn = () => new Promise(resolve => setImmediate(resolve))

/**
 * Polls `condition` until it is truthy and returns its value.
 * @param {() => any} condition may be async; an exception counts as "not yet" and is shown if the deadline passes
 * @param {{ what: string, within?: number, every?: number, detail?: () => any }} options milliseconds
 */
export async function until (condition, { what, within = 5000, every = 5, detail }) {
  const start = performance.now()
  let last
  for (;;) {
    try {
      const value = await condition()
      if (value) return value
      last = undefined
    } catch (error) {
      if (error?.fatal) throw error
      last = error
    }
    if (performance.now() - start > within) {
      const more = detail === undefined ? '' : `\n${safely(detail)}`
      throw new Error(`not within ${within} ms: ${what}${last ? `\nlast error: ${last.stack ?? last}` : ''}${more}`)
    }
    await new Promise(resolve => setTimeout(resolve, every))
  }
}

function safely (detail) {
  try {
    const text = detail()
    return typeof text === 'string' ? text : JSON.stringify(text)
  } catch (error) {
    return `(no detail: ${error})`
  }
}

/** Rejects when `promise` is not settled within `ms`. */
export async function deadline (promise, ms, what) {
  let timer
  const late = new Promise((resolve, reject) => {
    timer = setTimeout(() => reject(new Error(`not within ${ms} ms: ${what}`)), ms)
  })
  try {
    return await Promise.race([promise, late])
  } finally {
    clearTimeout(timer)
  }
}
