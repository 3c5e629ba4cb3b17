/** The bar on top of each page: links to all pages, and what the page itself adds. */
import type { ReactNode } from 'react'
import { chooseTheme, type Theme, useTheme } from './theme'

const PAGES = [
  { name: 'Jobs', path: '' },
  { name: 'API', path: 'api/docs' },
  { name: 'Events', path: 'api/docs/events' },
] as const

export type PageName = (typeof PAGES)[number]['name']

/** `root` is the relative address of the server's root, seen from the page, such as `../../`. */
export function Header({ here, root, children }: { here: PageName; root: string; children?: ReactNode }) {
  return (
    <header className="bar">
      <a className="brand" href={root || './'}>
        <Mark />
        runcast
      </a>
      <nav aria-label="Pages">
        {PAGES.map(({ name, path }) => (
          <a key={name} href={root + path || './'} aria-current={name === here ? 'page' : undefined}>
            {name}
          </a>
        ))}
      </nav>
      <div className="bar-end">
        {children}
        <ThemeChoice />
      </div>
    </header>
  )
}

function Mark() {
  return (
    <svg className="mark" viewBox="0 0 32 32" aria-hidden="true">
      <rect width="32" height="32" rx="8" />
      <path d="M9 16.5a6.5 6.5 0 0 1 6.5 6.5M9 10a13 13 0 0 1 13 13" />
      <circle cx="10.4" cy="22" r="2" />
    </svg>
  )
}

const NEXT: Record<Theme, Theme> = { auto: 'light', light: 'dark', dark: 'auto' }
const NAMES: Record<Theme, string> = { auto: 'same as the system', light: 'light', dark: 'dark' }

function ThemeChoice() {
  const theme = useTheme()
  const about = `Theme: ${NAMES[theme]}. Switch to: ${NAMES[NEXT[theme]]}`
  return (
    <button type="button" className="icon-button" aria-label={about} title={about} onClick={() => chooseTheme(NEXT[theme])}>
      <svg viewBox="0 0 20 20" aria-hidden="true">
        {theme === 'light' && (
          <>
            <circle cx="10" cy="10" r="3.4" />
            <path d="M10 2.2v2M10 15.8v2M2.2 10h2M15.8 10h2M4.5 4.5l1.4 1.4M14.1 14.1l1.4 1.4M4.5 15.5l1.4-1.4M14.1 5.9l1.4-1.4" />
          </>
        )}
        {theme === 'dark' && <path d="M16.2 12.1A6.8 6.8 0 0 1 7.9 3.8a6.8 6.8 0 1 0 8.3 8.3Z" />}
        {theme === 'auto' && (
          <>
            <circle cx="10" cy="10" r="6.6" />
            <path className="filled" d="M10 3.4a6.6 6.6 0 0 1 0 13.2Z" />
          </>
        )}
      </svg>
    </button>
  )
}
