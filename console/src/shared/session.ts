/** The token of this session, kept by the browser until the tab is closed; shared by all pages of this server. */
const KEY = 'runcast.token'

export function storedToken(): string | null {
  return sessionStorage.getItem(KEY)
}

export function storeToken(token: string | null): void {
  if (token === null) sessionStorage.removeItem(KEY)
  else sessionStorage.setItem(KEY, token)
}

/** Where the server is, seen from a page at `path` below its root, such as `api/docs/events`; with the prefix that a proxy put before all of it. */
export function serverAddress(path = ''): string {
  const here = location.origin + location.pathname
  return (path && here.endsWith(path) ? here.slice(0, -path.length) : here).replace(/\/+$/, '')
}
