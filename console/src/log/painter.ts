/** How the lines in sight look: colours, streams, error lines, notes and matches, as decorations of the editor. */
import { type Extension, type Range, RangeSetBuilder, StateEffect } from '@codemirror/state'
import { Decoration, type DecorationSet, type EditorView, ViewPlugin, type ViewUpdate } from '@codemirror/view'
import { classesOf, type Style } from './ansi.ts'
import type { Search } from './search.ts'
import type { Transcript } from './transcript.ts'

/** Paint again, though neither the text nor what is in sight has changed. */
export const redraw = StateEffect.define<null>()

/** The match and the error line that the reader went to last; -1 for none. */
export interface Place {
  /** The index of a match. */
  match: number
  /** The line of an error, counted from the first line that ever came. */
  errorLine: number
}

export class Painter {
  /** Part of the editor's state. */
  readonly extension: Extension
  private readonly decorations = new Map<string, Decoration>()

  constructor(
    private readonly transcript: Transcript,
    private readonly search: Search,
    private readonly place: Readonly<Place>,
  ) {
    const paint = (view: EditorView) => this.paint(view)
    this.extension = ViewPlugin.fromClass(
      class {
        decorations: DecorationSet = Decoration.none
        update(update: ViewUpdate) {
          const asked = update.transactions.some(({ effects }) => effects.some(effect => effect.is(redraw)))
          if (update.docChanged || update.viewportChanged || asked) this.decorations = paint(update.view)
        }
      },
      { decorations: plugin => plugin.decorations },
    )
  }

  private paint(view: EditorView): DecorationSet {
    const { droppedCharacters, droppedLines } = this.transcript
    const { doc } = view.state
    const lines = new RangeSetBuilder<Decoration>()
    const marks: Range<Decoration>[] = []
    for (const { from, to } of view.visibleRanges) {
      for (let number = doc.lineAt(from).number, last = doc.lineAt(to).number; number <= last; number += 1) {
        const decoration = this.lineDecoration(number - 1 + droppedLines)
        if (decoration) {
          const { from: start } = doc.line(number)
          lines.add(start, start, decoration)
        }
      }
      this.transcript.eachSpan(from + droppedCharacters, to + droppedCharacters, (start, end, style) => {
        const [begin, stop] = [Math.max(from, start - droppedCharacters), Math.min(to, end - droppedCharacters)]
        if (begin < stop) marks.push(this.mark(style).range(begin, stop))
      })
      this.markMatches(doc.sliceString(from, to), from, marks)
    }
    return Decoration.set([...iterate(lines.finish()), ...marks], true)
  }

  private lineDecoration(line: number): Decoration | null {
    const classes = [
      this.transcript.seqOf(line) === 0 ? 'note' : '',
      this.transcript.streamOf(line) === 'stderr' ? 'stderr' : '',
      this.transcript.isErrorLine(line) ? 'error-line' : '',
      this.place.errorLine === line ? 'here' : '',
    ]
    const name = classes.filter(Boolean).join(' ')
    return name === '' || line >= this.transcript.lines ? null : this.cached(`line:${name}`, () => Decoration.line({ class: name }))
  }

  private mark(style: Style): Decoration {
    return this.cached(`style:${style}`, () => Decoration.mark({ class: classesOf(style) }))
  }

  private markMatches(text: string, from: number, marks: Range<Decoration>[]): void {
    const { expression, found } = this.search
    if (!expression) return
    const current = this.place.match >= 0 ? found.at(this.place.match) - this.transcript.droppedCharacters : -1
    for (const match of text.matchAll(expression)) {
      const begin = from + match.index
      const name = begin === current ? 'match current' : 'match'
      marks.push(this.cached(name, () => Decoration.mark({ class: name })).range(begin, begin + match[0].length))
    }
  }

  private cached(name: string, make: () => Decoration): Decoration {
    const known = this.decorations.get(name)
    if (known) return known
    const made = make()
    this.decorations.set(name, made)
    return made
  }
}

function* iterate(set: DecorationSet): Generator<Range<Decoration>> {
  for (const cursor = set.iter(); cursor.value; cursor.next()) yield cursor.value.range(cursor.from, cursor.to)
}
