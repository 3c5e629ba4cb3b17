// Text of jobs as the console shows it: characters in it cannot move or hide the text around it.

/** Control characters, and invisible ones that change the direction of text or join and separate words. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: it looks for control characters
const INVISIBLE = /[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]/g

/** The text with every such character written out, as JSON may write it. Line feeds stay. */
export function visible(text: string): string {
  return text.replace(INVISIBLE, character => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`)
}

/** A value as readable JSON, which still parses to the same value. */
export function pretty(value: unknown): string {
  return visible(JSON.stringify(value, null, 2) ?? '')
}
