// biome-ignore-all lint/style/noNonNullAssertion: indexes of the tables and of parsed codes are always in range
/**
 * Turns what a program wrote into the text that is shown: colours become styles, other control sequences are removed, and the remaining control
 * characters are made visible. Pure; knows nothing of pages.
 */

/** A style as one number: bits 0 to 7 are bold, italic and so on, 8 to 16 the text colour, 17 to 25 the background; a colour is 1 + its index. */
export type Style = number

export const PLAIN: Style = 0
export const BOLD = 1
export const DIM = 2
export const ITALIC = 4
export const UNDERLINE = 8
export const INVERSE = 16
export const STRIKE = 32
const ATTRIBUTES = 0xff
const TEXT_SHIFT = 8
const BACKGROUND_SHIFT = 17
const COLOUR = 0x1ff

export interface Shown {
  text: string
  /** Triples: from, to, style; only where it is not plain. */
  spans: number[]
  /** The style that the next line begins with. */
  style: Style
}

/** Every control character but the tab: C0, DEL and C1. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: it looks for control characters
const CONTROL = /[\u0000-\u0008\u000a-\u001f\u007f-\u009f]/
/** CSI, then OSC, DCS, SOS, PM and APC with their ends, then two-character escapes; an unfinished one reaches to the end of the line. */
const SEQUENCE =
  // biome-ignore lint/suspicious/noControlCharactersInRegex: it looks for control sequences
  /(?:\u001b\[|\u009b)([0-?]*)([ -/]*)([@-~]|$)|(?:\u001b[\]PX^_]|[\u0090\u0098\u009d-\u009f])[^\u0007\u001b\u009c]*(?:\u0007|\u001b\\|\u009c|$|(?=\u001b))|\u001b[ -/]*(?:[0-~]|$)|[\u0000-\u0008\u000a-\u001f\u007f-\u009f]/g

export function show(line: string, style: Style): Shown {
  if (!CONTROL.test(line)) return { text: line, spans: style === PLAIN || line === '' ? [] : [0, line.length, style], style }
  const spans: number[] = []
  let text = ''
  let end = 0
  const add = (piece: string) => {
    if (piece === '') return
    if (style !== PLAIN) spans.push(text.length, text.length + piece.length, style)
    text += piece
  }
  for (const match of line.matchAll(SEQUENCE)) {
    add(line.slice(end, match.index))
    end = match.index + match[0].length
    if (match[3] === 'm' && match[2] === '') style = styled(style, match[1] ?? '')
    else if (match[0].length === 1) add(picture(match[0]))
  }
  add(line.slice(end))
  return { text, spans, style }
}

/** A visible character for a single control character: Unicode has pictures of C0 and DEL; escapes and C1 become a replacement character. */
function picture(character: string): string {
  const code = character.charCodeAt(0)
  if (code === 0x0d || code === 0x07 || code === 0x1b) return ''
  return code < 0x20 ? String.fromCharCode(0x2400 + code) : code === 0x7f ? '\u2421' : '\ufffd'
}

/** A cache: programs repeat a few sequences very often. */
const known = new Map<string, Map<Style, Style>>()
const MOST_KNOWN = 1000

function styled(style: Style, parameters: string): Style {
  let results = known.get(parameters)
  if (!results) {
    if (known.size >= MOST_KNOWN) known.clear()
    results = new Map()
    known.set(parameters, results)
  }
  let result = results.get(style)
  if (result === undefined) {
    if (results.size >= MOST_KNOWN) results.clear()
    result = applied(style, parameters)
    results.set(style, result)
  }
  return result
}

function applied(style: Style, parameters: string): Style {
  const codes = parameters.split(/[;:]/).map(code => (code === '' ? 0 : Number(code)))
  for (let at = 0; at < codes.length; at += 1) {
    const code = codes[at]!
    if (code === 38 || code === 48) {
      const [colour, taken] = extended(codes, at + 1)
      at += taken
      if (colour !== null) style = coloured(style, code === 38 ? TEXT_SHIFT : BACKGROUND_SHIFT, colour)
    } else {
      style = changed(style, code)
    }
  }
  return style
}

const SETS: Record<number, number> = { 1: BOLD, 2: DIM, 3: ITALIC, 4: UNDERLINE, 7: INVERSE, 9: STRIKE, 21: UNDERLINE }
const CLEARS: Record<number, number> = { 22: BOLD | DIM, 23: ITALIC, 24: UNDERLINE, 27: INVERSE, 29: STRIKE }

function changed(style: Style, code: number): Style {
  if (code === 0) return PLAIN
  if (code in SETS) return style | SETS[code]!
  if (code in CLEARS) return style & ~CLEARS[code]!
  if (code >= 30 && code <= 37) return coloured(style, TEXT_SHIFT, code - 30)
  if (code >= 90 && code <= 97) return coloured(style, TEXT_SHIFT, code - 82)
  if (code >= 40 && code <= 47) return coloured(style, BACKGROUND_SHIFT, code - 40)
  if (code >= 100 && code <= 107) return coloured(style, BACKGROUND_SHIFT, code - 92)
  if (code === 39) return style & ~(COLOUR << TEXT_SHIFT)
  if (code === 49) return style & ~(COLOUR << BACKGROUND_SHIFT)
  return style
}

function coloured(style: Style, shift: number, colour: number): Style {
  return (style & ~(COLOUR << shift)) | ((colour + 1) << shift)
}

/** The colour after 38 or 48, and how many codes it took. True colours become the nearest of the 256. */
function extended(codes: number[], at: number): [colour: number | null, taken: number] {
  if (codes[at] === 5) return [inPalette(codes[at + 1]), 2]
  if (codes[at] === 2) return [nearest(codes[at + 1], codes[at + 2], codes[at + 3]), 4]
  return [null, 1]
}

function inPalette(colour = -1): number | null {
  return colour >= 0 && colour <= 255 ? colour : null
}

const LEVELS = [0, 95, 135, 175, 215, 255]

function nearest(red = 0, green = 0, blue = 0): number | null {
  if ([red, green, blue].some(value => !(value >= 0 && value <= 255))) return null
  const level = (value: number) =>
    LEVELS.reduce((best, at, index) => (Math.abs(at - value) < Math.abs(LEVELS[best]! - value) ? index : best), 0)
  const cube = [level(red), level(green), level(blue)] as const
  const grey = Math.max(0, Math.min(23, Math.round(((red + green + blue) / 3 - 8) / 10)))
  const distance = (r: number, g: number, b: number) => (r - red) ** 2 + (g - green) ** 2 + (b - blue) ** 2
  const ofCube = distance(LEVELS[cube[0]]!, LEVELS[cube[1]]!, LEVELS[cube[2]]!)
  const ofGrey = distance(8 + grey * 10, 8 + grey * 10, 8 + grey * 10)
  return ofGrey < ofCube ? 232 + grey : 16 + 36 * cube[0] + 6 * cube[1] + cube[2]
}

/** The CSS classes of a style; `paletteSheet` defines them. */
export function classesOf(style: Style): string {
  const names: string[] = []
  for (const [bit, name] of [
    [BOLD, 'a-b'],
    [DIM, 'a-d'],
    [ITALIC, 'a-i'],
    [UNDERLINE, 'a-u'],
    [STRIKE, 'a-s'],
  ] as const) {
    if (style & ATTRIBUTES & bit) names.push(name)
  }
  let text = (style >> TEXT_SHIFT) & COLOUR
  let ground = (style >> BACKGROUND_SHIFT) & COLOUR
  if (style & INVERSE) {
    ;[text, ground] = [ground, text]
    if (text === 0) names.push('a-ft')
    if (ground === 0) names.push('a-gt')
  }
  if (text) names.push(`a-f${text - 1}`)
  if (ground) names.push(`a-g${ground - 1}`)
  return names.join(' ')
}

/** The style sheet of all 256 colours; the first 16 are those of the page, so that they can be read in both themes. */
export function paletteSheet(): string {
  const rules = [
    '.a-b{font-weight:700}.a-d{opacity:.7}.a-i{font-style:italic}.a-u{text-decoration:underline}.a-s{text-decoration:line-through}',
  ]
  rules.push('.a-ft{color:var(--surface)}.a-gt{background:var(--text)}')
  for (let colour = 0; colour < 256; colour += 1) {
    const value = colour < 16 ? `var(--ansi-${colour})` : hex(colour)
    rules.push(`.a-f${colour}{color:${value}}.a-g${colour}{background:${value}}`)
  }
  return rules.join('\n')
}

function hex(colour: number): string {
  const cube = colour - 16
  const parts =
    colour >= 232
      ? Array<number>(3).fill(8 + (colour - 232) * 10)
      : [Math.floor(cube / 36), Math.floor(cube / 6) % 6, cube % 6].map(level => LEVELS[level]!)
  return `#${parts.map(part => part.toString(16).padStart(2, '0')).join('')}`
}
