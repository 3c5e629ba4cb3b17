import { createRoot } from 'react-dom/client'
import { App } from './App'
import './page.css'
import './jobs/jobs.css'
import './job/job.css'
import './log/log.css'
import './submit/submit.css'
import './shared/base.css'
import { applyTheme } from './shared/theme'

applyTheme()
createRoot(document.getElementById('root') as HTMLElement).render(<App />)
