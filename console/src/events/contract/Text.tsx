import Markdown from 'markdown-to-jsx/react'
import { Fragment } from 'react'

/** A description of the contract, which is CommonMark. HTML in it is shown as text. */
export function Text({ children }: { children: string }) {
  return <Markdown options={{ disableParsingRawHTML: true, forceBlock: true, wrapper: Fragment }}>{children}</Markdown>
}

/** The same for a text of one line, without a paragraph around it. */
export function InlineText({ children }: { children: string }) {
  return <Markdown options={{ disableParsingRawHTML: true, forceInline: true, wrapper: Fragment }}>{children}</Markdown>
}
