/** Finds a text in a log, a little at a time, so that the page stays quick; goes on by itself as the log grows. */
import type { Text } from '@codemirror/state'
import { Numbers } from './numbers.ts'

export const MOST_MATCHES = 1_000_000
const SLICE_MS = 6
const LOOK_EVERY = 256

/** What is asked for, without its case; null for nothing. */
export function pattern(query: string): RegExp | null {
  return query === '' ? null : new RegExp(query.replace(/[.*+?^${}()|[\]\\]/g, '\\$&'), 'giu')
}

export class Search {
  /** Where the matches begin, in characters from the first that ever came. */
  readonly found = new Numbers()
  private regexp: RegExp | null = null
  /** How many characters were looked at, from the first that ever came. */
  private looked = 0

  ask(query: string, dropped: number): void {
    this.regexp = pattern(query)
    this.found.clear()
    this.looked = dropped
  }

  get expression(): RegExp | null {
    return this.regexp
  }

  drop(characters: number): void {
    this.found.drop(this.found.countBelow(characters))
    this.looked = Math.max(this.looked, characters)
  }

  /** Look at what was not looked at yet, for some milliseconds; whether there is more. `dropped` characters are before the text. */
  step(text: Text, dropped: number): boolean {
    const { regexp } = this
    if (!regexp || this.found.length >= MOST_MATCHES || this.looked - dropped >= text.length) return false
    const until = performance.now() + SLICE_MS
    const first = text.lineAt(Math.max(0, this.looked - dropped)).number
    let begin = text.line(first).from
    let count = 0
    for (const line of text.iterLines(first)) {
      for (const match of line.matchAll(regexp)) this.found.push(dropped + begin + match.index)
      begin += line.length + 1
      this.looked = dropped + begin
      count += 1
      if (count % LOOK_EVERY === 0 && performance.now() > until) return begin < text.length
    }
    return false
  }
}
