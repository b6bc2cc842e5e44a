module velagen.local/lab/kind

go 1.21
