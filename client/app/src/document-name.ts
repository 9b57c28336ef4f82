/** Which document the page shows: its address says so, nothing else. */

/** Shown at `/`. */
const DEFAULT_NAME = 'welcome'

/** `/?doc=name` or `/d/name`; anything else is the welcome document. */
export function documentName(location: Location): string {
  const query = new URLSearchParams(location.search).get('doc')?.trim()
  if (query) return query
  const path = /^\/d\/(.+)$/.exec(location.pathname)?.[1]
  if (path === undefined) return DEFAULT_NAME
  try {
    return decodeURIComponent(path)
  } catch {
    // A stray percent sign in a hand-made address is part of the name.
    return path
  }
}

/** The address to give to others. Slashes stay readable. */
export function shareUrl(location: Location, name: string): string {
  return new URL(`/d/${name.split('/').map(encodeURIComponent).join('/')}`, location.origin).href
}
