/** Finds a text in a log, a little in each frame, so that the page stays responsive. New lines are searched as they arrive. */
import type { Text } from '@codemirror/state'
import { Numbers } from './numbers.ts'

export const MOST_MATCHES = 1_000_000
const SLICE_MS = 6
const CHECK_TIME_EVERY_LINES = 256

/** The query as an expression that ignores case; null for an empty query. */
export function pattern(query: string): RegExp | null {
  return query === '' ? null : new RegExp(query.replace(/[.*+?^${}()|[\]\\]/g, '\\$&'), 'giu')
}

export class Search {
  /** Where the matches begin, counted from the first character that ever came. */
  readonly found = new Numbers()
  private regexp: RegExp | null = null
  /** How many characters have been searched, counted from the first that ever came. */
  private searched = 0

  ask(query: string, dropped: number): void {
    this.regexp = pattern(query)
    this.found.clear()
    this.searched = dropped
  }

  get expression(): RegExp | null {
    return this.regexp
  }

  drop(characters: number): void {
    this.found.drop(this.found.countBelow(characters))
    this.searched = Math.max(this.searched, characters)
  }

  /** Search for a few milliseconds where no search was yet; returns whether there is more. `dropped` characters precede the text. */
  step(text: Text, dropped: number): boolean {
    const { regexp } = this
    if (!regexp || this.found.length >= MOST_MATCHES || this.searched - dropped >= text.length) return false
    const until = performance.now() + SLICE_MS
    const first = text.lineAt(Math.max(0, this.searched - dropped)).number
    let begin = text.line(first).from
    let count = 0
    for (const line of text.iterLines(first)) {
      for (const match of line.matchAll(regexp)) this.found.push(dropped + begin + match.index)
      begin += line.length + 1
      this.searched = dropped + begin
      count += 1
      if (count % CHECK_TIME_EVERY_LINES === 0 && performance.now() > until) return begin < text.length
    }
    return false
  }
}
