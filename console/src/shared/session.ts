/** The token of this session. The browser keeps it until the tab is closed, and all pages of this server share it. */
const KEY = 'runcast.token'

export function storedToken(): string | null {
  return sessionStorage.getItem(KEY)
}

export function storeToken(token: string | null): void {
  if (token === null) sessionStorage.removeItem(KEY)
  else sessionStorage.setItem(KEY, token)
}

/** The address of the server, for a page at `path` below its root, such as `api/docs/events`; with the path prefix of a proxy, if there is one. */
export function serverAddress(path = ''): string {
  const here = location.origin + location.pathname
  return (path && here.endsWith(path) ? here.slice(0, -path.length) : here).replace(/\/+$/, '')
}
