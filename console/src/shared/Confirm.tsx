import { type ReactNode, useEffect, useId, useRef } from 'react'

/** Asks before something that cannot be undone. The first button only closes the dialog, and so does Escape. */
export function Confirm(props: {
  title: string
  children?: ReactNode
  action: string
  /** The button that does nothing. */
  dismiss: string
  danger?: boolean
  onConfirm(): void
  onClose(): void
}) {
  const dialog = useRef<HTMLDialogElement>(null)
  const title = useId()
  useEffect(() => {
    dialog.current?.showModal()
  }, [])
  return (
    <dialog ref={dialog} className="dialog" aria-labelledby={title} onClose={props.onClose}>
      <form method="dialog" onSubmit={() => props.onConfirm()}>
        <h2 id={title}>{props.title}</h2>
        {props.children}
        <div className="dialog-buttons">
          <button type="button" className="button" onClick={() => dialog.current?.close()}>
            {props.dismiss}
          </button>
          <button type="submit" className={props.danger ? 'button primary danger' : 'button primary'}>
            {props.action}
          </button>
        </div>
      </form>
    </dialog>
  )
}
