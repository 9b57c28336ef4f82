/** Going on elsewhere: the frozen text, saved under a name of its own, and the page there. */

import { SynclineProvider } from '@syncline/client'

/** A copy that is not saved by then is not going to be; milliseconds. */
const DEADLINE_MS = 15_000

/** The name of a new copy. Random, since two people may make one at the same time. */
export function copyName(name: string): string {
  return `${name}-copy-${Math.random().toString(36).slice(2, 6)}`
}

/** Saves a fork of the document under another name. Resolves when it is durable there; rejects with a reason for a person. */
export async function saveCopy(provider: SynclineProvider, name: string): Promise<void> {
  const copy = new SynclineProvider(provider.url, name, provider.fork())
  let timer: ReturnType<typeof setTimeout> | undefined
  try {
    await Promise.race([
      copy.whenSaved,
      new Promise<never>((_, reject) => {
        copy.on('rejected', ({ message, code }) => {
          reject(new Error(message || code))
        })
        copy.on('closed', ({ message, code }) => {
          reject(new Error(message || code))
        })
        timer = setTimeout(() => {
          reject(new Error('the server does not answer'))
        }, DEADLINE_MS)
      }),
    ])
  } finally {
    clearTimeout(timer)
    copy.destroy()
  }
}
