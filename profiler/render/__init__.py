"""From results to what people see: tables in the terminal, pages in the browser."""
